// SPDX-License-Identifier: Apache-2.0
/* Says when a path opens and closes, by a datagram every EVERY_US to an echo server.
 *   flip ADDRESS PORT EVERY_US      waits for a byte on standard input, then prints "open T" at the first answer after
 *                                   none, and "closed T" when there has been none for 50 ms; T of the last answer then.
 *                                   Milliseconds of CLOCK_MONOTONIC. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct pollfd polled[2] = { { .fd = 0, .events = POLLIN }, { .events = POLLIN } };
	double last = 0, every_us;
	int open = 0, fd, six;
	char byte;

	if (argc != 4) {
		fprintf(stderr, "usage: flip ADDRESS PORT EVERY_US\n");
		return 2;
	}
	prctl(PR_SET_TIMERSLACK, 1000); /* else a short sleep takes 50 us longer */
	every_us = atof(argv[3]);
	six = inet_pton(AF_INET, argv[1], &v4.sin_addr) != 1;
	if (six)
		inet_pton(AF_INET6, argv[1], &v6.sin6_addr);
	v4.sin_port = v6.sin6_port = htons(atoi(argv[2]));
	fd = polled[1].fd = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
	if (read(0, &byte, 1) != 1)
		return 0;
	for (;;) {
		struct timespec wait = { .tv_nsec = every_us * 1e3 };

		sendto(fd, "?", 1, MSG_DONTWAIT, six ? (void *)&v6 : (void *)&v4, six ? sizeof(v6) : sizeof(v4));
		ppoll(polled, 2, &wait, NULL);
		if (polled[0].revents && read(0, &byte, 1) <= 0)
			return 0;
		while (recv(fd, &byte, 1, MSG_DONTWAIT) == 1) {
			last = now_ms();
			if (!open)
				printf("open %.3f\n", last);
			open = 1;
		}
		if (open && now_ms() - last > 50) {
			printf("closed %.3f\n", last);
			open = 0;
		}
		fflush(stdout);
		/* An answer ends the wait early: keep the pace. */
		if (polled[1].revents)
			nanosleep(&wait, NULL);
	}
}
