/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Maps about processes. They are pinned by name; each says who writes it. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "process_structs.h"

/* Written by the agent: the pods of this node by the cookie of their network namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u32);
} netns_pods SEC(".maps");

/* Written by the socket hooks. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct socket_key);
	__type(value, struct socket_owner);
} socket_owners SEC(".maps");
