/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is read of the kernel's own structures: as much of each as is needed here; libbpf finds out at loading where the
 * running kernel has it. */
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "process_structs.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[];
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	int group_exit_code;
};

struct mm_struct {
	unsigned long arg_start, arg_end, env_end;
};

struct kuid {
	unsigned int val;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	__u64 start_boottime;
	__u64 self_exec_id;
	struct task_struct *group_leader;
	struct task_struct *real_parent;
	struct pid *thread_pid;
	struct signal_struct *signal;
	struct mm_struct *mm;
	const struct cred *cred;
};

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_words {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__be32 skc_daddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_words skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
};

struct file;

struct socket {
	struct sock *sk;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

/* Number of the node's namespace of pids; set by the agent. */
const volatile __u32 node_pid_namespace = 0;

/* The pid of a task's process in the node's namespace; 0 for processes of elsewhere. Namespaces are few levels deep, and the
 * number of a level must be a constant. Kernels before 6.5 let programs see the first level only. */
static __always_inline __u32 pid_on_node(struct pid *pid)
{
	if (!pid)
		return 0;
	if (pid->numbers[0].ns && pid->numbers[0].ns->ns.inum == node_pid_namespace)
		return pid->numbers[0].nr;
	if (bpf_core_field_size(pid->numbers) > 0)
		return 0;
#define LEVEL(n)                                                                                          \
	if (pid->level < (n))                                                                             \
		return 0;                                                                                 \
	if (pid->numbers[n].ns && pid->numbers[n].ns->ns.inum == node_pid_namespace)                      \
		return pid->numbers[n].nr;
	LEVEL(1)
	LEVEL(2)
	LEVEL(3)
	LEVEL(4)
	LEVEL(5)
#undef LEVEL
	return 0;
}

/* Who a task is. 0 when it is a process of the node. */
static __always_inline int process_of(struct process_ref *who, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	who->pid = pid_on_node(leader->thread_pid);
	if (!who->pid)
		return -1;
	who->start_ns = leader->start_boottime;
	who->exec = task->self_exec_id;
	who->uid = task->cred->uid.val;
	who->pad = 0;
	return 0;
}
