/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Processes and the sockets that they own, as the kernel and the agent share them. */
#pragma once

#include <linux/types.h>

/* A process: nobody else has these numbers, and another program in the same process has another `exec`. */
struct process_ref {
	__u64 start_ns; /* CLOCK_BOOTTIME */
	__u32 pid;	/* as the node's own namespace of pids numbers it; 0: nobody */
	__u32 exec;	/* how often it and its forebears called exec */
	__u32 uid;
	__u32 pad;
};

/* socket_owners: by a socket's place in its network namespace. The local address is left out: a pod has one of each
 * family. Zeros stand for "any": sockets that listen, and those of UDP, which are known by their port alone. */
struct socket_key {
	__u32 ifindex; /* host side of the pod's veth; 0: the node's own network */
	__be16 local_port;
	__be16 remote_port;
	__u8 remote[16];
	__u8 protocol;
	__u8 pad[7];
};

enum socket_flags {
	SOCKET_ACCEPTED = 1,	/* the owner is who listens, until who works on it is seen */
	SOCKET_MEASURED = 2, /* it has closed: the figures of TCP are its last */
};

struct socket_owner {
	struct process_ref who;
	__u64 since_ns; /* CLOCK_MONOTONIC */
	__u32 handshake_us;
	__u32 rtt_us;
	__u32 min_rtt_us;
	__u32 retransmits;
	__u32 flags;
	__u32 pad;
};

enum process_event_type {
	PROCESS_EXEC = 1,
	PROCESS_FORK = 2,
	PROCESS_EXIT = 3,
};

#define PROCESS_PATH_MAX 512
#define PROCESS_ARGS_MAX 3072

/* One record of the ring `process_events`; of an exec the path and the arguments follow it, each argument ended by a zero. */
struct process_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	struct process_ref who;
	struct process_ref parent; /* of an exec and a fork */
	__u64 cgroup;
	__u32 type;
	__u32 exit_status; /* as wait(2) tells it */
	__u32 path_len;	   /* with its zero */
	__u32 args_len;
	__u32 args_cut; /* bytes of arguments that were left out */
	__u32 pad;
};

enum process_counter {
	PROCESS_EVENTS_LOST = 0, /* the ring was full */
	PROCESS_COUNTER_MAX = 4,
};
