package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	body, err := os.Open(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	reply, err := http.Post(os.Args[1], "application/octet-stream", body)
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Body.Close()
	if reply.StatusCode != 200 {
		log.Fatal(reply.Status)
	}
	sink, err := os.Create(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	if _, err = io.Copy(sink, reply.Body); err != nil {
		log.Fatal(err)
	}
}
