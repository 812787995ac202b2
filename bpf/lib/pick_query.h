/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A question and its answer: which backend would this connection get? */
#pragma once

#include <linux/types.h>

/* Why a pick ended as it did: the answer to "why this backend?". */
enum pick_cause {
	PICK_NONE = 0,	   /* no backend */
	PICK_RANDOM = 1,
	PICK_MAGLEV = 2,
	PICK_AFFINITY = 3, /* it served this client before */
	PICK_FLOW = 4,	   /* the connection is there already, and has it */
};

struct pick_query {
	/* the question */
	__u8 client[16];
	__u8 addr[16];
	__u64 netns; /* of a socket: the cookie of its network namespace; 0: per packet */
	__be16 client_port;
	__be16 port;
	__u8 protocol;
	__u8 scope;
	__u8 node_port; /* the address is a node's whose node ports are served here */
	/* the answer */
	__u8 found;
	__u8 admitted;
	__u8 pad[3];
	struct pick_answer {
		__u32 service; /* id of the frontend */
		__u32 flags;
		__u32 slot_count;
		__u32 cause;
		__u32 backend; /* number; 0: nobody, or chosen at random when it comes to it */
	} answer;
	__u32 pad2;
};
