/* A file to a socket: sendfile, and waiting until the socket takes more, without Python between the two. */

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#if defined(__linux__)
#include <sys/sendfile.h>
#endif

enum { SENT, WAITS, ENDED };

/* Sends up to nbytes of fd from offset on to the socket out, which does not block; sent tells how many that was. Gives SENT
   once it was all; WAITS where the socket took nothing for patience_ms, ENDED where the file did, or an errno, negative. */
int32_t weir_send_file(int32_t out, int32_t fd, int64_t offset, int64_t nbytes, int32_t patience_ms, int64_t *sent)
{
#if defined(__linux__)
    off_t at = offset;
    while (*sent < nbytes) {
        const int64_t count = sendfile(out, fd, &at, (size_t)(nbytes - *sent));
        if (count > 0) {
            *sent += count;
        } else if (count == 0) {
            return ENDED;
        } else if (errno == EAGAIN) {
            struct pollfd socket = {out, POLLOUT, 0};
            const int ready = poll(&socket, 1, patience_ms);
            if (ready == 0)
                return WAITS;
            if (ready < 0 && errno != EINTR)
                return -errno;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return SENT;
#else
    (void)out, (void)fd, (void)offset, (void)nbytes, (void)patience_ms, (void)sent;
    return -ENOSYS;
#endif
}
