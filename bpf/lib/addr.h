/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Addresses: 16 bytes each, IPv4 as ::ffff:a.b.c.d. */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_endian.h>

/* Both on a multiple of 8: without the casts the compiler copies byte by byte. */
static __always_inline void addr_copy(__u8 *to, const __u8 *from)
{
	__u64 *t = (__u64 *)to;
	const __u64 *f = (const __u64 *)from;

	t[0] = f[0];
	t[1] = f[1];
}

/* For places that are on a multiple of 4 only. */
static __always_inline void addr_copy_by4(__u8 *to, const __u8 *from)
{
	__u32 *t = (__u32 *)to;
	const __u32 *f = (const __u32 *)from;

	t[0] = f[0];
	t[1] = f[1];
	t[2] = f[2];
	t[3] = f[3];
}

static __always_inline void addr_from_ip4(__u8 *to, __be32 ip)
{
	__u32 *w = (__u32 *)to;

	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = ip;
}

static __always_inline int addr_is_ip4(const __u8 *a)
{
	return !*(const __u64 *)a && *(const __u32 *)(a + 8) == bpf_htonl(0xffff);
}

static __always_inline int addr_is_unset(const __u8 *a)
{
	const __u64 *w = (const __u64 *)a;

	return !(w[0] | w[1]);
}

static __always_inline int addr_equal(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline int addr_is_loopback(const __u8 *addr)
{
	const __u32 *w = (const __u32 *)addr;

	if (addr_is_ip4(addr))
		return addr[12] == 127;
	return !w[0] && !w[1] && !w[2] && w[3] == bpf_htonl(1);
}
