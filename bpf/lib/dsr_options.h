/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How a packet that is sent on for a client names the frontend that it was sent to. */
#pragma once

#include <linux/types.h>

#include "packet.h"

/* Both are numbers for experiments (RFC 4727); stacks that do not know them pass over them. */
#define DSR_OPTION4 0x9e
#define DSR_OPTION6 0x1e

struct dsr_option4 {
	__u8 type, len;
	__be16 port;
	__be32 addr;
} __attribute__((packed));

struct dsr_option6 {
	__u8 next, len;
	__u8 type, option_len;
	__be16 port;
	__u8 addr[16];
	__u8 pad_type, pad_len;
} __attribute__((packed));

static __always_inline __u32 option_len(int ipv6)
{
	return ipv6 ? sizeof(struct dsr_option6) : sizeof(struct dsr_option4);
}

/* Does this packet have to say which frontend was meant? Of TCP the backend's node remembers it, and is reminded once a
 * second where there is room: it may have forgotten a connection that was quiet. */
static __always_inline int names_frontend(const struct packet *p)
{
	return p->protocol != IPPROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}
