/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* All maps of the datapath. They are pinned by name and shared by every program of the node. Each says who writes it. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "datapath_structs.h"
#include "process_maps.h"
#include "service_structs.h"

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_entry);
} ipcache SEC(".maps");

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_prefix_key);
	__type(value, struct ipcache_entry);
} ipcache_prefix SEC(".maps");

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_peer_key);
	__type(value, struct policy_peer);
} policy_peer SEC(".maps");

/* Written by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_port_key);
	__type(value, struct policy_port);
} policy_ports SEC(".maps");

/* Written by the agent: a slot is raised when a verdict about an address that falls into it may have changed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EPOCH_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u32);
} epochs SEC(".maps");

/* The rest is written by the datapath alone. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct ct4_key);
	__type(value, struct ct_entry);
} ct4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct ct6_key);
	__type(value, struct ct_entry);
} ct6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOPS);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 * 1024 * 1024);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* By drop reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct drop_count);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drop_limit_key);
	__type(value, struct drop_limit);
} drop_limits SEC(".maps");

/* Room for what does not fit on a program's 512 bytes of stack. Programs on one CPU do not interrupt each other. */
struct judgement {
	__u8 src[16] __attribute__((aligned(8))); /* originator */
	__u8 dst[16] __attribute__((aligned(8)));
	struct ipcache_entry from;
	struct ipcache_entry to;
	__u32 epoch[2];
	__u16 epoch_slot[2];
	__u32 cookie[2];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 direction; /* whose policy denied */
	__u8 staged;	/* CT_STAGED_* */
	__u8 audited;	/* bits of enum direction: denied, and let through by the firewall's mode */
};

/* A packet as its headers describe it. */
struct packet {
	__u8 src[16] __attribute__((aligned(8))); /* IPv4 as ::ffff:a.b.c.d */
	__u8 dst[16] __attribute__((aligned(8)));
	__be16 sport; /* echo: the identifier, in both */
	__be16 dport;
	__be32 tcp_seq;
	__be32 tcp_ack;
	__u32 l4_off;	   /* of the transport header in the frame */
	__u32 payload_len; /* TCP, SCTP: what follows the header */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 icmp_error; /* speaks of another packet, whose header follows it */
	__u8 later_fragment;
	__u8 ipv6;
	__u8 first_fragment;
};

/* The frontend that a packet was sent to, before it was given a backend. */
struct meant {
	__u8 addr[16] __attribute__((aligned(8)));
	__u32 service;
	__be16 port;
	__u8 hairpin;
	__u8 pad;
};

struct scratch {
	struct packet packet; /* of the balancer, whose stack is full */
	struct packet inner; /* the packet that an ICMP error speaks of */
	struct ct_entry entry;
	struct judgement judgement;
	struct meant meant;
	struct service_flow_key flow_key;
	struct service_flow flow;
	struct service_reply reply;
	struct service_flow_key reply_key;
	struct fragment_key fragment_key;
	struct socket_key socket_key;
	struct ipcache_key address;
	__u8 refusal[160] __attribute__((aligned(8))); /* a message in the making, see refuse.h */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");
