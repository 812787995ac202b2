// SPDX-License-Identifier: Apache-2.0
/* Says when an address begins to answer: connects again and again until it works.
 *   reach ADDRESS PORT      prints "trying", and "reached T" at the first connection; T in milliseconds of CLOCK_MONOTONIC.
 * An attempt gets 20 ms: what is dropped in silence must not hold up the next one. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int attempt(const struct sockaddr *to, socklen_t len)
{
	int fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0, ok;
	struct linger hard = { .l_onoff = 1 };
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t size = sizeof(error);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	ok = connect(fd, to, len) == 0;
	if (!ok && errno == EINPROGRESS && poll(&p, 1, 20) == 1)
		ok = !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && !error;
	close(fd);
	return ok;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct timespec t, pause = { .tv_nsec = 200000 };
	int six;

	if (argc != 3) {
		fprintf(stderr, "usage: reach ADDRESS PORT\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_TIMERSLACK, 1000);
	six = inet_pton(AF_INET, argv[1], &v4.sin_addr) != 1;
	if (six && inet_pton(AF_INET6, argv[1], &v6.sin6_addr) != 1)
		return 2;
	v4.sin_port = v6.sin6_port = htons(atoi(argv[2]));
	puts("trying");
	fflush(stdout);
	while (!(six ? attempt((struct sockaddr *)&v6, sizeof(v6)) : attempt((struct sockaddr *)&v4, sizeof(v4))))
		nanosleep(&pause, NULL);
	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("reached %.3f\n", t.tv_sec * 1e3 + t.tv_nsec / 1e6);
	return 0;
}
