// The Go peer: net/http, tuned as far as a service of this size is tuned: full duplex, 1 MiB buffers that are reused,
// and a reader beside the writer, so that receiving, working and sending overlap. Standard library only. Started with the
// folder of its files.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

const bufferBytes = 1 << 20

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferBytes); return &b }}

// filled is what one read left in a buffer; the last one of a body that broke off carries its error.
type filled struct {
	buffer *[]byte
	n      int
	err    error
}

// readAhead fills buffers from body, two ahead of whoever takes them; it ends with the body, or when done is closed.
func readAhead(body io.Reader, done <-chan struct{}) <-chan filled {
	ahead := make(chan filled, 2)
	go func() {
		defer close(ahead)
		for {
			buffer := buffers.Get().(*[]byte)
			n, err := body.Read(*buffer)
			if err == io.EOF {
				err = nil
				if n == 0 {
					return
				}
			}
			select {
			case ahead <- filled{buffer, n, err}:
			case <-done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return ahead
}

// stream answers with what work makes of each piece of the body, while the body arrives. Work changes a piece in place.
func stream(w http.ResponseWriter, r *http.Request, work func([]byte)) {
	duplex(w)
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.ContentLength >= 0 { // the answer is as long as the body: no chunked framing
		w.Header().Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	done := make(chan struct{})
	defer close(done)
	for piece := range readAhead(r.Body, done) {
		if piece.err != nil {
			panic(http.ErrAbortHandler)
		}
		data := (*piece.buffer)[:piece.n]
		if work != nil {
			work(data)
		}
		_, err := w.Write(data)
		buffers.Put(piece.buffer)
		if err != nil {
			return
		}
	}
}

func duplex(w http.ResponseWriter) {
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		panic(err)
	}
}

func upper(data []byte) {
	for i, c := range data {
		if c-'a' < 26 {
			data[i] = c - 32
		}
	}
}

func sink(w http.ResponseWriter, r *http.Request) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	var total int64
	for {
		n, err := r.Body.Read(*buffer)
		total += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	fmt.Fprintf(w, "%d\n", total)
}

// disk writes the body to a new file, while it arrives.
func disk(w http.ResponseWriter, r *http.Request) {
	file, err := os.Create(filepath.Join(os.Args[1], "disk-go"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	var total int64
	done := make(chan struct{})
	defer close(done)
	for piece := range readAhead(r.Body, done) {
		if piece.err != nil {
			panic(http.ErrAbortHandler)
		}
		n, err := file.Write((*piece.buffer)[:piece.n])
		buffers.Put(piece.buffer)
		total += int64(n)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInsufficientStorage)
			return
		}
	}
	if err := file.Close(); err != nil {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(w, "%d\n", total)
}

// Where the columns of TPC-H lineitem stand. Only the last one, l_comment, is ever quoted, and nothing here reads it.
const (
	orderKey      = 0
	quantity      = 4
	extendedPrice = 5
	discount      = 6
	shipMode      = 14
)

// filter is the script that one would write for this file: rows with l_quantity below a bound, three columns of them.
func filter(w http.ResponseWriter, r *http.Request) {
	bound, err := strconv.ParseFloat(r.URL.Query().Get("quantity_lt"), 64)
	if err != nil {
		http.Error(w, "quantity_lt: "+err.Error(), http.StatusBadRequest)
		return
	}
	duplex(w)
	w.Header().Set("Content-Type", "text/csv")
	in := bufio.NewReaderSize(r.Body, bufferBytes)
	out := bufio.NewWriterSize(w, bufferBytes)
	if _, err := in.ReadSlice('\n'); err != nil {
		http.Error(w, "no header line", http.StatusUnprocessableEntity)
		return
	}
	out.WriteString("l_orderkey,revenue,l_shipmode\n")
	var fields [shipMode + 1][]byte
	var row []byte
	for {
		line, err := in.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			panic(http.ErrAbortHandler)
		}
		for i := range fields {
			comma := bytes.IndexByte(line, ',')
			if comma < 0 {
				panic(http.ErrAbortHandler)
			}
			fields[i], line = line[:comma], line[comma+1:]
		}
		if number(fields[quantity]) >= bound {
			continue
		}
		revenue := number(fields[extendedPrice]) * (1 - number(fields[discount]))
		row = append(row[:0], fields[orderKey]...)
		row = append(row, ',')
		row = strconv.AppendFloat(row, revenue, 'f', -1, 64)
		row = append(row, ',')
		row = append(row, fields[shipMode]...)
		row = append(row, '\n')
		if _, err := out.Write(row); err != nil {
			return
		}
	}
	out.Flush()
}

func number(field []byte) float64 {
	value, err := strconv.ParseFloat(string(field), 64)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return value
}

func main() {
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	http.HandleFunc("/sink", sink)
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { stream(w, r, nil) })
	http.HandleFunc("/upper", func(w http.ResponseWriter, r *http.Request) { stream(w, r, upper) })
	http.HandleFunc("/disk", disk)
	http.Handle("/file/", http.StripPrefix("/file/", http.FileServer(http.Dir(os.Args[1]))))
	http.HandleFunc("/filter", filter)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
}
