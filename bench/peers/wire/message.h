// One HTTP/1.1 message as it comes, a request or a response: its head, and its body freed of its framing. No I/O.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEAD_BYTES = 16384, LINE_BYTES = 256 };

enum state { IN_HEAD, IN_LENGTH, IN_SIZE_LINE, IN_CHUNK, IN_CHUNK_END, IN_TRAILERS, ENDED, BROKEN };

// All zero, a message is ready for its first byte. What stands behind its end is left to the caller.
struct message {
    enum state state;
    char head[HEAD_BYTES]; // ends with a zero; complete once the state is past IN_HEAD
    size_t head_bytes;
    bool chunked;
    long long length; // what Content-Length says; -1 without one
    long long left;   // of the body, or of the chunk that has begun
    char line[LINE_BYTES];
    size_t line_bytes;
};

struct span {
    const char *data;
    size_t nbytes;
};

// The value of a field, up to the end of its line; NULL if the head has no such field.
static inline const char *message_field(const struct message *m, const char *name) {
    size_t n = strlen(name);
    for (const char *line = strstr(m->head, "\r\n"); line != NULL; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, n) == 0 && line[n] == ':')
            return line + n + 1 + strspn(line + n + 1, " \t");
    }
    return NULL;
}

// `bodyless` answers (to HEAD, 204, 304) end with their head; requests without either field do, too.
static inline void message_begin_body(struct message *m, bool bodyless) {
    const char *length = message_field(m, "content-length"), *coding = message_field(m, "transfer-encoding");
    m->chunked = coding != NULL && strncasecmp(coding, "chunked", 7) == 0;
    m->length = length == NULL ? -1 : strtoll(length, NULL, 10);
    m->left = m->length > 0 ? m->length : 0;
    m->state = bodyless ? ENDED : m->chunked ? IN_SIZE_LINE : m->left > 0 ? IN_LENGTH : ENDED;
}

// Take the head's bytes off `data`; how many. The head is complete once it returns with `*complete` set.
static inline size_t message_take_head(struct message *m, const char *data, size_t nbytes, bool *complete) {
    size_t before = m->head_bytes, room = HEAD_BYTES - 1 - before;
    size_t taken = nbytes < room ? nbytes : room;
    memcpy(m->head + before, data, taken);
    m->head[before + taken] = 0;
    const char *end = strstr(m->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
    *complete = end != NULL;
    if (end == NULL) {
        m->head_bytes += taken;
        if (m->head_bytes == HEAD_BYTES - 1)
            m->state = BROKEN;
        return taken;
    }
    m->head_bytes = end + 4 - m->head;
    m->head[m->head_bytes] = 0;
    return m->head_bytes - before;
}

static inline void message_end_line(struct message *m) {
    char *end;
    m->line[m->line_bytes] = 0;
    bool whole = m->line_bytes >= 2 && m->line[m->line_bytes - 2] == '\r';
    bool empty = m->line_bytes == 2;
    m->line_bytes = 0;
    if (!whole) {
        m->state = BROKEN;
    } else if (m->state == IN_CHUNK_END) {
        m->state = empty ? IN_SIZE_LINE : BROKEN;
    } else if (m->state == IN_TRAILERS) {
        m->state = empty ? ENDED : IN_TRAILERS;
    } else {
        m->left = strtoll(m->line, &end, 16);
        bool right = end != m->line && m->left >= 0 && (*end == '\r' || *end == ';');
        m->state = !right ? BROKEN : m->left ? IN_CHUNK : IN_TRAILERS;
    }
}

// Take some of `data`, which follows the head; how much. What of it belongs to the body is in `span`, maybe nothing.
static inline size_t message_take(struct message *m, const char *data, size_t nbytes, struct span *span) {
    span->nbytes = 0;
    if (m->state == IN_LENGTH || m->state == IN_CHUNK) {
        span->data = data;
        span->nbytes = (long long)nbytes < m->left ? nbytes : (size_t)m->left;
        m->left -= (long long)span->nbytes;
        if (m->left == 0)
            m->state = m->state == IN_LENGTH ? ENDED : IN_CHUNK_END;
        return span->nbytes;
    }
    size_t taken = 0;
    while (taken < nbytes && m->state != BROKEN) {
        char c = data[taken++];
        if (m->line_bytes == LINE_BYTES - 1) {
            m->state = BROKEN;
            break;
        }
        m->line[m->line_bytes++] = c;
        if (c == '\n') {
            message_end_line(m);
            break;
        }
    }
    return taken;
}
