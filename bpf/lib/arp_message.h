/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ARP for IPv4 on Ethernet (RFC 826). */
#pragma once

#include <linux/types.h>

struct arp_message {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender_ip;
	__u8 target_mac[6];
	__be32 target_ip;
} __attribute__((packed));
