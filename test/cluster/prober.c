// SPDX-License-Identifier: Apache-2.0
/* One end of many probes, in a pod's network namespace: answers TCP and UDP on its ports, and tries connections that it
 * is told of on standard input, all at once.
 *   prober PORT...      then lines "ID tcp|udp ADDRESS PORT TIMEOUT_MS"; answers "ID ok", "ID refused" or "ID silent" */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 1024

struct probe {
	int id, fd, udp;
	long deadline_ms;
};

static struct probe probes[MOST];
static int probe_count;

static long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int open_server(int type, int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, off = 0;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || (type == SOCK_STREAM && listen(fd, 1024))) {
		perror("prober: cannot listen");
		exit(1);
	}
	return fd;
}

static void finish(int i, const char *outcome)
{
	printf("%d %s\n", probes[i].id, outcome);
	close(probes[i].fd);
	probes[i] = probes[--probe_count];
}

static void start(const char *line)
{
	struct sockaddr_storage to = {};
	struct sockaddr_in *v4 = (void *)&to;
	struct sockaddr_in6 *v6 = (void *)&to;
	char kind[8], address[64];
	int id, port, timeout, udp, fd;
	struct linger gone = { 1, 0 };
	socklen_t len;

	if (sscanf(line, "%d %7s %63s %d %d", &id, kind, address, &port, &timeout) != 5 || probe_count == MOST) {
		fprintf(stderr, "prober: cannot do: %s\n", line);
		exit(1);
	}
	udp = !strcmp(kind, "udp");
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		len = sizeof(*v4);
	} else {
		inet_pton(AF_INET6, address, &v6->sin6_addr);
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		len = sizeof(*v6);
	}
	fd = socket(to.ss_family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &gone, sizeof(gone));
	probes[probe_count++] = (struct probe){ .id = id, .fd = fd, .udp = udp, .deadline_ms = now_ms() + timeout };
	if (connect(fd, (struct sockaddr *)&to, len) && errno != EINPROGRESS)
		finish(probe_count - 1, "refused");
	else if (udp && write(fd, "?", 1) != 1)
		finish(probe_count - 1, "refused");
}

static void look(int i, short events)
{
	socklen_t len = sizeof(int);
	int error = 0;
	char c;

	if (probes[i].udp) {
		if (events)
			finish(i, read(probes[i].fd, &c, 1) == 1 ? "ok" : "refused");
	} else if (events) {
		getsockopt(probes[i].fd, SOL_SOCKET, SO_ERROR, &error, &len);
		finish(i, error ? "refused" : "ok");
	}
}

int main(int argc, char **argv)
{
	static char input[1 << 16];
	size_t have = 0;
	int servers = 0, i;
	static struct pollfd polled[MOST + 64];

	for (i = 1; i < argc; i++) {
		polled[1 + servers++] = (struct pollfd){ .fd = open_server(SOCK_STREAM, atoi(argv[i])), .events = POLLIN };
		polled[1 + servers++] = (struct pollfd){ .fd = open_server(SOCK_DGRAM, atoi(argv[i])), .events = POLLIN };
	}
	polled[0] = (struct pollfd){ .fd = 0, .events = POLLIN };
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		int watched = probe_count;
		long now;

		for (i = 0; i < watched; i++)
			polled[1 + servers + i] = (struct pollfd){ .fd = probes[i].fd, .events = probes[i].udp ? POLLIN : POLLOUT };
		poll(polled, 1 + servers + watched, watched ? 5 : -1);
		now = now_ms();
		for (i = watched - 1; i >= 0; i--)
			if (polled[1 + servers + i].revents)
				look(i, polled[1 + servers + i].revents);
		for (i = probe_count - 1; i >= 0; i--)
			if (probes[i].deadline_ms <= now)
				finish(i, "silent");
		for (i = 0; i < servers; i++) {
			struct sockaddr_storage from;
			socklen_t len = sizeof(from);
			char c[16];
			int fd = polled[1 + i].fd, one;

			if (!(polled[1 + i].revents & POLLIN))
				continue;
			if (i % 2 == 0) {
				while ((one = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
					close(one);
			} else {
				ssize_t n;

				while ((n = recvfrom(fd, c, sizeof(c), 0, (struct sockaddr *)&from, &len)) >= 0) {
					sendto(fd, c, n, 0, (struct sockaddr *)&from, len);
					len = sizeof(from);
				}
			}
		}
		if (polled[0].revents) {
			ssize_t n = read(0, input + have, sizeof(input) - 1 - have);
			char *line = input, *end;

			if (n <= 0)
				return 0;
			have += n;
			input[have] = 0;
			while ((end = strchr(line, '\n'))) {
				*end = 0;
				start(line);
				line = end + 1;
			}
			have -= line - input;
			memmove(input, line, have);
		}
		fflush(stdout);
	}
}
