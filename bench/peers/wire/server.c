// The limit: what two C processes do with the same requests. A thread for each connection, blocking calls, 1 MiB of
// memory each, no checks that a server on a network needs. It prints its port.
//
//   server FOLDER     POST /sink /echo /upper /disk, GET /file/NAME (sendfile), /memory/NAME, /healthz
//
// /memory/NAME sends the first 4 MiB of that file again and again, as many bytes as the file has.
#define _GNU_SOURCE
#include "message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ROOM_BYTES = 1 << 20, BLOCK_BYTES = 4 << 20, LOW_WATER_BYTES = 512 << 10, QUIET_MS = 2, LANES = 64 };

static const char *folder;

struct connection {
    int fd, low_water;
    char *room, *next; // what was received last, and what of it was not taken
    size_t held;
    struct message request;
};

// Not by a blocking recv: with SO_RCVLOWAT that sleeps on after it has taken a part of what it was to wait for. Of a
// chunked body nobody knows when less than the low water is all that comes, so it is looked for now and then.
static bool receive(struct connection *c) {
    struct pollfd ready = {c->fd, POLLIN, 0};
    ssize_t n;
    do {
        poll(&ready, 1, c->request.chunked && c->low_water > 1 ? QUIET_MS : -1);
        n = recv(c->fd, c->room, ROOM_BYTES, MSG_DONTWAIT);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    c->next = c->room;
    c->held = n > 0 ? (size_t)n : 0;
    return n > 0;
}

// Waking up for every packet costs more than the bytes.
static void set_low_water(struct connection *c) {
    long long left = c->request.chunked ? LOW_WATER_BYTES : c->request.left;
    int wanted = c->request.state == ENDED || left <= 0 ? 1 : left < LOW_WATER_BYTES ? (int)left : LOW_WATER_BYTES;
    if (wanted != c->low_water)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted);
    c->low_water = wanted;
}

// The next bytes of the request's body; false at its end, with the state BROKEN if that is not where it should be.
static bool next_span(struct connection *c, struct span *span) {
    struct message *m = &c->request;
    span->nbytes = 0;
    while (span->nbytes == 0 && m->state != ENDED && m->state != BROKEN) {
        if (c->held == 0) {
            set_low_water(c);
            if (!receive(c)) {
                m->state = BROKEN;
                return false;
            }
        }
        size_t taken = message_take(m, c->next, c->held, span);
        c->next += taken;
        c->held -= taken;
    }
    if (m->state == ENDED)
        set_low_water(c);
    return span->nbytes > 0;
}

static bool send_parts(struct connection *c, struct iovec *parts, int count) {
    while (count) {
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = (size_t)count};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return false;
        for (n = n < 0 ? 0 : n; count && (size_t)n >= parts->iov_len; parts++, count--)
            n -= (ssize_t)parts->iov_len;
        if (count) {
            parts->iov_base = (char *)parts->iov_base + n;
            parts->iov_len -= (size_t)n;
        }
    }
    return true;
}

static bool send_text(struct connection *c, const char *text) {
    return send_parts(c, &(struct iovec){(char *)text, strlen(text)}, 1);
}

static bool answer(struct connection *c, const char *status, const char *body) {
    char text[512];
    snprintf(text, sizeof text, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
    return send_text(c, text);
}

static bool answer_size(struct connection *c, long long nbytes) {
    char text[32];
    snprintf(text, sizeof text, "%lld\n", nbytes);
    return c->request.state == ENDED && answer(c, "200 OK", text);
}

static void make_upper(char *data, size_t nbytes) {
    size_t i = 0;
    for (; i + LANES <= nbytes; i += LANES) // of a fixed length, compilers make vector code of it
        for (size_t j = i; j < i + LANES; j++)
            data[j] = (char)(data[j] - ((unsigned char)(data[j] - 'a') < 26 ? 32 : 0));
    for (; i < nbytes; i++)
        data[i] = (char)(data[i] - ((unsigned char)(data[i] - 'a') < 26 ? 32 : 0));
}

static bool sink(struct connection *c) {
    struct span span;
    long long total = 0;
    while (next_span(c, &span))
        total += (long long)span.nbytes;
    return answer_size(c, total);
}

static bool stream(struct connection *c, bool upper) {
    char head[128], line[32];
    struct span span;
    bool chunked = c->request.chunked;
    if (chunked)
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    else
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", c->request.left);
    if (!send_text(c, head))
        return false;
    while (next_span(c, &span)) {
        if (upper)
            make_upper((char *)span.data, span.nbytes);
        struct iovec parts[3] = {{line, 0}, {(char *)span.data, span.nbytes}, {"\r\n", 2}};
        parts[0].iov_len = (size_t)snprintf(line, sizeof line, "%zx\r\n", span.nbytes);
        if (!(chunked ? send_parts(c, parts, 3) : send_parts(c, parts + 1, 1)))
            return false;
    }
    return c->request.state == ENDED && (!chunked || send_text(c, "0\r\n\r\n"));
}

static bool disk(struct connection *c) {
    char path[4096];
    struct span span;
    long long total = 0;
    snprintf(path, sizeof path, "%s/disk-c", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (fd >= 0 && next_span(c, &span))
        for (size_t done = 0; done < span.nbytes;) {
            ssize_t n = write(fd, span.data + done, span.nbytes - done);
            if (n < 0) {
                close(fd);
                return false;
            }
            done += (size_t)n;
            total += n;
        }
    return fd >= 0 && close(fd) == 0 && answer_size(c, total);
}

static bool send_block(struct connection *c, int fd, off_t nbytes) {
    char *block = malloc(BLOCK_BYTES);
    ssize_t have = block == NULL ? 0 : pread(fd, block, BLOCK_BYTES, 0);
    bool well = have > 0;
    while (well && nbytes) {
        struct iovec part = {block, (size_t)(nbytes < have ? nbytes : have)};
        nbytes -= (off_t)part.iov_len;
        well = send_parts(c, &part, 1);
    }
    free(block);
    return well;
}

static bool file(struct connection *c, const char *name, bool from_memory) {
    char path[4096], head[128];
    struct stat found;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = strchr(name, '/') ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &found))
        return answer(c, "404 Not Found", "no such file\n");
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %lld\r\n\r\n", (long long)found.st_size);
    bool well = send_text(c, head);
    if (from_memory)
        well = well && send_block(c, fd, found.st_size);
    else
        for (off_t offset = 0; well && offset < found.st_size;)
            well = sendfile(c->fd, fd, &offset, (size_t)(found.st_size - offset)) > 0;
    close(fd);
    return well;
}

static bool route(struct connection *c) {
    char target[2048] = "";
    sscanf(c->request.head, "%*15s %2047s", target);
    if (strcmp(target, "/healthz") == 0)
        return answer(c, "200 OK", "ok\n");
    if (strcmp(target, "/sink") == 0)
        return sink(c);
    if (strcmp(target, "/echo") == 0 || strcmp(target, "/upper") == 0)
        return stream(c, target[1] == 'u');
    if (strcmp(target, "/disk") == 0)
        return disk(c);
    if (strncmp(target, "/file/", 6) == 0)
        return file(c, target + 6, false);
    if (strncmp(target, "/memory/", 8) == 0)
        return file(c, target + 8, true);
    answer(c, "404 Not Found", "not here\n");
    return false;
}

static void *serve(void *argument) {
    struct connection c = {.fd = (int)(long)argument, .low_water = 1, .room = malloc(ROOM_BYTES)};
    bool well = c.room != NULL;
    while (well) {
        bool complete = false;
        memset(&c.request, 0, sizeof c.request);
        while (!complete && c.request.state != BROKEN && (c.held || receive(&c))) {
            size_t taken = message_take_head(&c.request, c.next, c.held, &complete);
            c.next += taken;
            c.held -= taken;
        }
        if (!complete)
            break;
        message_begin_body(&c.request, false);
        well = route(&c) && c.request.state == ENDED;
    }
    free(c.room);
    close(c.fd);
    return NULL;
}

int main(int count, char **words) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (count != 2 || bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024))
        return 2;
    folder = words[1];
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        pthread_t thread;
        if (fd < 0)
            continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (pthread_create(&thread, NULL, serve, (void *)(long)fd) == 0)
            pthread_detach(thread);
        else
            close(fd);
    }
}
