// The client of the wire's figures: sends one block again and again as the body, and compares every byte that comes
// back, meanwhile, with what must come. It prints one line of JSON; anything that is not right ends it with status 1.
//
//   client METHOD URL --block FILE [--bytes N] [--chunk N] [--expect same|upper|size|nothing]
//          [--read N] [--write N] [--rate N] [--connections N] [--patience S] [--field NAME]
//
// bytes: of the body; with GET, of the answer. chunk: bytes of each chunk; without it, Content-Length. read, write: the
// largest single read, and what is written before it reads again. rate: bytes a second, in each direction, of each
// connection. patience: seconds without any progress. field: a response field to print.
#define _GNU_SOURCE
#include "message.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 10, SIZE_TEXT_BYTES = 32, PARTS = 4 };
enum expected { SAME, UPPER, SIZE, NOTHING };
static const char *const EXPECTED[] = {"same", "upper", "size", "nothing"};

static struct {
    const char *method, *block_file, *field;
    enum expected expect;
    char host[64], target[2048];
    int port;
    long long bytes, chunk, read, write, rate, connections;
    double patience;
} asked = {.read = 1 << 20, .write = 1 << 20, .connections = 1, .patience = 60};

static char *block, *wanted, *room; // what is sent; what must come back; what was received last
static long long block_bytes;
static bool uploads;

struct connection {
    int fd;
    char request[4096];
    bool head_sent, body_ended, broken;
    struct iovec parts[PARTS]; // composed, and not yet written
    int first_part, part_count;
    char size_line[32];
    long long sent; // bytes of the body that were composed
    double send_credit, read_credit;
    struct message answer;
    bool answering;
    int status;
    long long received; // bytes of the answer's body
    char size_text[SIZE_TEXT_BYTES];
    bool done;
};

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    va_end(words);
    fputc('\n', stderr);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void load_block(void) {
    int fd = open(asked.block_file, O_RDONLY);
    struct stat found;
    if (fd < 0 || fstat(fd, &found) || found.st_size == 0)
        fail("cannot read %s", asked.block_file);
    block_bytes = found.st_size;
    block = malloc((size_t)block_bytes);
    if (block == NULL || read(fd, block, (size_t)block_bytes) != block_bytes)
        fail("cannot read %s", asked.block_file);
    close(fd);
    wanted = block;
    if (asked.expect == UPPER) {
        wanted = malloc((size_t)block_bytes);
        for (long long i = 0; i < block_bytes; i++)
            wanted[i] = block[i] >= 'a' && block[i] <= 'z' ? block[i] - 32 : block[i];
    }
}

static void dial(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)asked.port)};
    int yes = 1;
    inet_pton(AF_INET, asked.host, &address.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
        fail("connect: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->body_ended = !uploads;
}

// Sending.

static void add_part(struct connection *c, const char *data, long long nbytes) {
    c->parts[c->part_count++] = (struct iovec){(char *)data, (size_t)nbytes};
}

static void compose_head(struct connection *c) {
    char framing[64] = "";
    if (uploads && asked.chunk)
        snprintf(framing, sizeof framing, "Transfer-Encoding: chunked\r\n");
    else if (uploads)
        snprintf(framing, sizeof framing, "Content-Length: %lld\r\n", asked.bytes);
    int n = snprintf(c->request, sizeof c->request, "%s %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n", asked.method, asked.target,
                     asked.host, asked.port, framing);
    add_part(c, c->request, n);
    c->head_sent = true;
}

// Put the next piece together; false if there is none, or none may go yet.
static bool compose(struct connection *c) {
    c->first_part = c->part_count = 0;
    if (!c->head_sent) {
        compose_head(c);
        return true;
    }
    if (c->body_ended)
        return false;
    long long left = asked.bytes - c->sent;
    long long nbytes = asked.chunk ? asked.chunk : asked.write;
    nbytes = left < nbytes ? left : nbytes;
    if (asked.rate) {
        long long least = asked.chunk || nbytes < 4096 ? nbytes : 4096;
        if (c->send_credit < (double)least)
            return false;
        nbytes = (double)nbytes < c->send_credit ? nbytes : (long long)c->send_credit;
        c->send_credit -= (double)nbytes;
    }
    if (asked.chunk) // the last one is empty
        add_part(c, c->size_line, snprintf(c->size_line, sizeof c->size_line, "%llx\r\n", nbytes));
    long long begin = c->sent % block_bytes;
    long long here = nbytes < block_bytes - begin ? nbytes : block_bytes - begin;
    add_part(c, block + begin, here);
    if (nbytes > here)
        add_part(c, block, nbytes - here);
    if (asked.chunk)
        add_part(c, "\r\n", 2);
    c->sent += nbytes;
    c->body_ended = asked.chunk ? nbytes == 0 : c->sent == asked.bytes;
    return true;
}

static bool has_to_send(const struct connection *c) {
    return !c->head_sent || c->first_part < c->part_count || !c->body_ended;
}

// Write until the kernel takes no more, or it is time to read. How many bytes were written.
static long long push(struct connection *c) {
    long long written = 0;
    while (written < asked.write && (c->first_part < c->part_count || compose(c))) {
        struct msghdr message = {.msg_iov = c->parts + c->first_part, .msg_iovlen = (size_t)(c->part_count - c->first_part)};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) { // the answer may say why
            c->first_part = c->part_count = 0;
            c->body_ended = c->broken = true;
            break;
        }
        if (n < 0)
            fail("send: %s", strerror(errno));
        written += n;
        while (c->first_part < c->part_count && (size_t)n >= c->parts[c->first_part].iov_len)
            n -= (ssize_t)c->parts[c->first_part++].iov_len;
        if (n) {
            c->parts[c->first_part].iov_base = (char *)c->parts[c->first_part].iov_base + n;
            c->parts[c->first_part].iov_len -= (size_t)n;
        }
    }
    return written;
}

// Receiving.

static void compare(struct connection *c, const char *data, size_t nbytes) {
    if (asked.expect == NOTHING)
        fail("an answer of %zu bytes or more where there must be none", nbytes);
    if (asked.expect == SIZE) {
        if (c->received + (long long)nbytes >= SIZE_TEXT_BYTES)
            fail("the answer is too long to be a size");
        memcpy(c->size_text + c->received, data, nbytes);
        c->received += (long long)nbytes;
        return;
    }
    if (c->received + (long long)nbytes > (uploads ? c->sent : asked.bytes))
        fail("the answer is longer than what it answers: more than %lld bytes", c->received);
    while (nbytes) {
        size_t begin = (size_t)(c->received % block_bytes), here = (size_t)block_bytes - begin;
        here = nbytes < here ? nbytes : here;
        if (memcmp(data, wanted + begin, here)) {
            size_t i = 0;
            while (data[i] == wanted[begin + i])
                i++;
            fail("byte %lld of the answer is wrong", c->received + (long long)i);
        }
        data += here;
        nbytes -= here;
        c->received += (long long)here;
    }
}

static void end_answer(struct connection *c) {
    char size[SIZE_TEXT_BYTES];
    if (has_to_send(c) || c->broken)
        fail("answered after %lld of %lld bytes", c->sent, asked.bytes);
    snprintf(size, sizeof size, "%lld\n", asked.bytes);
    if (asked.expect == SIZE && strcmp(c->size_text, size))
        fail("the answer says %.31s", c->size_text);
    if ((asked.expect == SAME || asked.expect == UPPER) && c->received != asked.bytes)
        fail("the answer has %lld of %lld bytes", c->received, asked.bytes);
    c->done = true;
}

static void take(struct connection *c, const char *data, size_t nbytes) {
    struct message *m = &c->answer;
    while (nbytes && !c->answering) {
        bool complete;
        size_t taken = message_take_head(m, data, nbytes, &complete);
        data += taken;
        nbytes -= taken;
        if (!complete)
            break;
        if (sscanf(m->head, "HTTP/1.%*1[01] %3d", &c->status) != 1)
            fail("not an answer: %.60s", m->head);
        if (c->status / 100 == 1) {
            memset(m, 0, sizeof *m);
            continue;
        }
        if (c->status / 100 != 2)
            fail("status %d %.*s", c->status, nbytes < 300 ? (int)nbytes : 300, data);
        bool bodyless = c->status == 204;
        if (!bodyless && !message_field(m, "content-length") && !message_field(m, "transfer-encoding"))
            fail("an answer whose end cannot be told from a truncation");
        message_begin_body(m, bodyless);
        c->answering = true;
    }
    while (nbytes && m->state != ENDED && m->state != BROKEN) {
        struct span span;
        size_t taken = message_take(m, data, nbytes, &span);
        if (span.nbytes)
            compare(c, span.data, span.nbytes);
        data += taken;
        nbytes -= taken;
    }
    if (m->state == BROKEN)
        fail("the answer is not framed as HTTP says, near byte %lld", c->received);
    if (nbytes)
        fail("%zu bytes behind the answer", nbytes);
    if (m->state == ENDED)
        end_answer(c);
}

static long long pull(struct connection *c) {
    long long most = asked.read;
    if (asked.rate && c->read_credit < (double)most)
        most = (long long)c->read_credit;
    ssize_t n = recv(c->fd, room, (size_t)most, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0)
        fail("recv: %s after %lld bytes of the answer and %lld of the body", strerror(errno), c->received, c->sent);
    if (n == 0)
        fail("truncated: the connection ended after %lld bytes of the answer", c->received);
    c->read_credit -= (double)n;
    take(c, room, (size_t)n);
    return n;
}

// All of them.

static void earn(struct connection *c, double seconds) {
    double most = (double)asked.rate / 4 + (double)asked.chunk + 4096; // a stall is not made good for by a rush
    double earned = seconds * (double)asked.rate;
    c->send_credit = c->send_credit + earned < most ? c->send_credit + earned : most;
    c->read_credit = c->read_credit + earned < most ? c->read_credit + earned : most;
}

static void run(struct connection *all, struct pollfd *polled) {
    double last = now(), progressed = last;
    for (long long open = asked.connections; open;) {
        double t = now();
        for (long long i = 0; i < asked.connections; i++) {
            struct connection *c = all + i;
            if (asked.rate && !c->done)
                earn(c, t - last);
            bool may_send = has_to_send(c) && (!asked.rate || c->first_part < c->part_count || c->send_credit >= 4096 ||
                                               !c->head_sent || asked.bytes - c->sent < 4096);
            bool may_read = !asked.rate || c->read_credit >= 1;
            polled[i] = (struct pollfd){c->done ? -1 : c->fd, (short)((may_send ? POLLOUT : 0) | (may_read ? POLLIN : 0)), 0};
        }
        last = t;
        if (asked.rate)
            usleep(TICK_MS * 1000);
        int ready = poll(polled, (nfds_t)asked.connections, asked.rate ? TICK_MS : 1000);
        if (ready < 0 && errno != EINTR)
            fail("poll: %s", strerror(errno));
        long long moved = 0;
        for (long long i = 0; i < asked.connections; i++) {
            struct connection *c = all + i;
            if (polled[i].revents & POLLOUT)
                moved += push(c);
            if (polled[i].revents & (POLLIN | POLLHUP | POLLERR))
                moved += pull(c);
            if (c->done && polled[i].fd >= 0) {
                close(c->fd);
                open--;
            }
        }
        if (moved)
            progressed = t;
        else if (t - progressed > asked.patience)
            fail("no progress for %g s; the first has sent %lld and received %lld bytes", asked.patience, all->sent,
                 all->received);
    }
}

static void read_options(int count, char **words) {
    static const struct option names[] = {
        {"block", 1, NULL, 'b'}, {"bytes", 1, NULL, 'n'}, {"chunk", 1, NULL, 'c'},       {"expect", 1, NULL, 'e'},
        {"read", 1, NULL, 'r'},  {"write", 1, NULL, 'w'}, {"rate", 1, NULL, 'a'},        {"connections", 1, NULL, 'm'},
        {"patience", 1, NULL, 'p'}, {"field", 1, NULL, 'f'}, {NULL, 0, NULL, 0}};
    for (int name; (name = getopt_long(count, words, "", names, NULL)) != -1;) {
        switch (name) {
        case 'b': asked.block_file = optarg; break;
        case 'n': asked.bytes = atoll(optarg); break;
        case 'c': asked.chunk = atoll(optarg); break;
        case 'e':
            while (strcmp(optarg, EXPECTED[asked.expect]))
                if (++asked.expect > NOTHING)
                    fail("--expect same, upper, size or nothing");
            break;
        case 'r': asked.read = atoll(optarg); break;
        case 'w': asked.write = atoll(optarg); break;
        case 'a': asked.rate = atoll(optarg); break;
        case 'm': asked.connections = atoll(optarg); break;
        case 'p': asked.patience = atof(optarg); break;
        case 'f': asked.field = optarg; break;
        default: exit(2);
        }
    }
    if (count - optind != 2 || asked.block_file == NULL)
        fail("usage: client METHOD URL --block FILE [options]");
    asked.method = words[optind];
    if (sscanf(words[optind + 1], "http://%63[0-9.]:%d%2047s", asked.host, &asked.port, asked.target) != 3)
        fail("the URL must be http://ADDRESS:PORT/PATH");
    uploads = strcmp(asked.method, "GET") != 0;
}

static void print_field(const struct message *answer) {
    const char *value = message_field(answer, asked.field);
    size_t n = value == NULL ? 0 : strcspn(value, "\r\"\\");
    printf(", \"field\": \"%.*s\"", (int)n, value == NULL ? "" : value);
}

int main(int count, char **words) {
    read_options(count, words);
    load_block();
    struct connection *all = calloc((size_t)asked.connections, sizeof *all);
    struct pollfd *polled = calloc((size_t)asked.connections, sizeof *polled);
    room = malloc((size_t)asked.read);
    if (all == NULL || polled == NULL || room == NULL)
        fail("no memory");
    memset(room, 1, (size_t)asked.read); // touched before the clock runs
    double begun = now();
    for (long long i = 0; i < asked.connections; i++)
        dial(all + i);
    run(all, polled);
    double seconds = now() - begun;
    long long received = 0;
    for (long long i = 0; i < asked.connections; i++)
        received += all[i].received;
    printf("{\"seconds\": %.6f, \"received_bytes\": %lld, \"status\": %d", seconds, received, all->status);
    if (asked.field)
        print_field(&all->answer);
    printf("}\n");
    return 0;
}
