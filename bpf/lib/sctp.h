/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* SCTP's checksum where the ports change. It is a CRC of the whole packet (CRC32c, RFC 9260 appendix A), but a linear one: it
 * changes by the remainder of the changed bytes' difference, moved up by the length of what follows them. So only the length
 * has to be known, and the packet's data need not be read. */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

struct sctp_head {
	__be16 sport;
	__be16 dport;
	__be32 tag;
	__u32 check; /* the low byte first, where all else of the header has the high one first */
};

/* The Castagnoli polynomial, the term of the highest degree in the lowest bit, as the CRC takes bits. */
#define CRC32C_POLYNOMIAL 0x82f63b78

/* By four bits of a length at a time, the lowest first: x^(8 * digit * 16^k) modulo the polynomial, which is what so many bytes
 * multiply a difference by. */
static const __u32 crc32c_powers[4][16] = {
	{
		0x80000000, 0x00800000, 0x00008000, 0x00000080, 0x82f63b78, 0xfbc3faf9, 0x8b277743, 0x52a0c93f,
		0x6ea2d55c, 0x1c08b7d6, 0xf56e0ef4, 0x34019664, 0xa66805eb, 0x7a1f6b24, 0xe75d06aa, 0xc94ec098,
	},
	{
		0x80000000, 0x18b8ea18, 0x510ac59a, 0xb2dea967, 0xb82be955, 0x36c41f1c, 0x19b29a35, 0xc9e90b9e,
		0xb8fdb1e7, 0xe55ef1f3, 0x1fe0b5c3, 0xe0553f1e, 0x18e4a304, 0x2b830011, 0x56993a31, 0x0246e2e6,
	},
	{
		0x80000000, 0x88e56f72, 0x74c360a4, 0x631bb273, 0xe4172b16, 0x71892b1b, 0x835305c9, 0x196b1eae,
		0x0d65762a, 0xafc81338, 0xb5a50ab7, 0xf373c3ac, 0x5f60970f, 0xd46d3063, 0x3a5275ea, 0x02331c01,
	},
	{
		0x80000000, 0x35d73a62, 0x28461564, 0x43eefc9f, 0xbf455269, 0x5edcdeb9, 0x65059450, 0x4e6f41a4,
		0xe2ea32dc, 0xf5b95b32, 0x695a4c87, 0xf204502c, 0x9a4f01b6, 0x941a0916, 0x4303cb97, 0x4c3d3d65,
	},
};

/* What the checksum differs by when the ports, read as one word, do. len: of the packet from the ports on, below 2^16.
 * Who calls it is not static, so that it is verified once and not anew for every way that leads there. */
static __always_inline __u32 sctp_difference(__u32 ports, __u32 len)
{
	int k, i;

	for (k = 0; k < 4; k++) {
		__u32 power = crc32c_powers[k][len >> 4 * k & 15], product = 0;

		/* By products, and hidden from the compiler, which would make comparisons or masks of them: verifiers follow those
		 * once for each outcome. */
		for (i = 0; i < 32; i++) {
			__u32 top = ports >> 31, low = power & 1;

			asm volatile("" : "+r"(top), "+r"(low));
			product ^= power * top;
			ports <<= 1;
			power = (power >> 1) ^ CRC32C_POLYNOMIAL * low;
		}
		ports = product;
	}
	return ports;
}

/* The checksum after a change. One of zero is none yet: it is made where the packet leaves, by the device or in its place, and
 * has to be zero until then. (Of 2^32 packets one has it by chance. It is lost, and sent again.) */
static __always_inline __u32 sctp_check_after(__u32 check, __u32 ports, __u32 len)
{
	return check ? check ^ sctp_difference(ports, len) : 0;
}
