// SPDX-License-Identifier: Apache-2.0
/* Calls a CNI plugin as a container runtime does, and measures each call from fork to the end of the process.
 *   cni-load COMMAND PLUGIN CNI_PATH CONFIG_FILE AT_ONCE   with lines "CONTAINER NETNS ARGS" on standard input
 * Prints the milliseconds of each call, a line each, and {"seconds": N} for all; ends with 1 when a call failed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 4096

struct call {
	pid_t pid;
	int answer;
	double began;
	char line[512];
};

static struct call calls[MOST];

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void begin(struct call *call, char **argv)
{
	char line[512], *container, *netns, *args, *rest;

	strcpy(line, call->line);
	container = strtok_r(line, " \n", &rest);
	netns = strtok_r(NULL, " \n", &rest);
	args = strtok_r(NULL, " \n", &rest);
	call->answer = memfd_create("answer", MFD_CLOEXEC);
	call->began = now_ms();
	call->pid = fork();
	if (call->pid == 0) {
		dup2(open(argv[4], O_RDONLY), 0);
		dup2(call->answer, 1);
		setenv("CNI_COMMAND", argv[1], 1);
		setenv("CNI_CONTAINERID", container, 1);
		setenv("CNI_NETNS", netns, 1);
		setenv("CNI_IFNAME", "eth0", 1);
		setenv("CNI_PATH", argv[3], 1);
		setenv("CNI_ARGS", args ? args : "", 1);
		execl(argv[2], argv[2], NULL);
		fprintf(stderr, "cni-load: %s: %s\n", argv[2], strerror(errno));
		_exit(127);
	}
}

int main(int argc, char **argv)
{
	int count = 0, next = 0, running = 0, failed = 0, at_once, status, i;
	double begun;

	if (argc != 6) {
		fprintf(stderr, "usage: cni-load COMMAND PLUGIN CNI_PATH CONFIG_FILE AT_ONCE\n");
		return 2;
	}
	at_once = atoi(argv[5]);
	while (count < MOST && fgets(calls[count].line, sizeof(calls[count].line), stdin))
		count++;
	begun = now_ms();
	while (next < count || running) {
		pid_t pid;

		while (next < count && running < at_once) {
			begin(&calls[next++], argv);
			running++;
		}
		pid = wait(&status);
		running--;
		for (i = 0; i < next && calls[i].pid != pid; i++)
			;
		printf("%.3f\n", now_ms() - calls[i].began);
		if (status) {
			char text[512];
			ssize_t n = pread(calls[i].answer, text, sizeof(text) - 1, 0);

			text[n > 0 ? n : 0] = 0;
			fprintf(stderr, "cni-load: %s failed: %s\n", argv[1], text);
			failed = 1;
		}
		close(calls[i].answer);
	}
	printf("{\"seconds\": %.4f}\n", (now_ms() - begun) / 1e3);
	return failed;
}
