/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who runs on the node: programs that begin, processes that are made and that end; and which of a server's processes works
 * on a connection that another one listened for. Tracepoints see the whole machine: what is not in the node's namespace of
 * pids is none of ours. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "lib/addr.h"
#include "lib/process_maps.h"
#include "lib/socket_owner.h"
#include "lib/task.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} process_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROCESS_COUNTER_MAX);
	__type(key, __u32);
	__type(value, __u64);
} process_counters SEC(".maps");

/* An exec in the making. */
struct exec_room {
	struct process_event event;
	char text[PROCESS_PATH_MAX + 4096];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_room);
} exec_room SEC(".maps");

static __always_inline void put(void *data, __u64 len)
{
	__u32 which = PROCESS_EVENTS_LOST;
	__u64 *lost;

	if (!bpf_ringbuf_output(&process_events, data, len, BPF_RB_NO_WAKEUP))
		return;
	lost = bpf_map_lookup_elem(&process_counters, &which);
	if (lost)
		*lost += 1;
}

static __always_inline void begin(struct process_event *e, __u32 type)
{
	__builtin_memset(e, 0, sizeof(*e));
	e->type = type;
	e->time_ns = bpf_ktime_get_boot_ns();
	e->cgroup = bpf_get_current_cgroup_id();
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task)
{
	struct exec_room *room;
	struct process_event *e;
	unsigned long args, len;
	struct mm_struct *mm;
	__u32 zero = 0, at;
	long got;

	room = bpf_map_lookup_elem(&exec_room, &zero);
	if (!room)
		return 0;
	e = &room->event;
	begin(e, PROCESS_EXEC);
	if (process_of(&e->who, task))
		return 0;
	process_of(&e->parent, task->real_parent);
	mm = task->mm;
	if (!mm)
		return 0;
	/* The kernel puts the name that exec was given behind the environment. */
	got = bpf_probe_read_user_str(room->text, PROCESS_PATH_MAX, (void *)mm->env_end);
	at = got > 0 && got <= PROCESS_PATH_MAX ? got : 0;
	e->path_len = at;
	args = mm->arg_start;
	len = mm->arg_end - args;
	if (len > PROCESS_ARGS_MAX) {
		e->args_cut = len - PROCESS_ARGS_MAX;
		len = PROCESS_ARGS_MAX;
	}
	if (at > PROCESS_PATH_MAX)
		return 0;
	len &= 4095;
	if (!bpf_probe_read_user(room->text + at, len, (void *)args))
		e->args_len = len;
	else
		len = 0;
	len += at;
	if (len > sizeof(room->text))
		return 0;
	put(room, sizeof(*e) + len);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct process_event e;

	if (child->pid != child->tgid) /* a thread */
		return 0;
	begin(&e, PROCESS_FORK);
	if (process_of(&e.who, child))
		return 0;
	process_of(&e.parent, parent);
	put(&e, sizeof(e));
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct process_event e;

	if (task->signal->live.counter) /* the process has other threads */
		return 0;
	begin(&e, PROCESS_EXIT);
	if (process_of(&e.who, task))
		return 0;
	e.exit_status = task->signal->group_exit_code ? task->signal->group_exit_code : task->exit_code;
	put(&e, sizeof(e));
	return 0;
}

/* Names who works on a socket that had nobody: of an accepted connection the first process that reads or writes, of a
 * datagram socket that was connected before it had a port the first that sends. All others cost a look at a pointer. */
static __always_inline int name_worker(struct sock *sk)
{
	struct socket_owner fresh = {}, *known;
	struct socket_key key = {};
	struct unnamed_socket *waiting;

	waiting = bpf_sk_storage_get(&unnamed_sockets, sk, 0, 0);
	if (!waiting)
		return 0;
	if (process_of(&fresh.who, bpf_get_current_task_btf()))
		return 0;
	if (sk->sk_protocol == IPPROTO_UDP) {
		if (owner_place(&key, sk->__sk_common.skc_net.net->net_cookie) || !sk->__sk_common.skc_num)
			return 0;
		key.protocol = IPPROTO_UDP;
		key.local_port = bpf_htons(sk->__sk_common.skc_num);
		fresh.since_ns = bpf_ktime_get_ns();
		bpf_map_update_elem(&socket_owners, &key, &fresh, BPF_ANY);
	} else {
		key = waiting->key;
		known = bpf_map_lookup_elem(&socket_owners, &key);
		if (known) {
			known->who = fresh.who;
			known->flags &= ~SOCKET_ACCEPTED;
		}
	}
	bpf_sk_storage_delete(&unnamed_sockets, sk);
	return 0;
}

SEC("tp_btf/sock_send_length")
int BPF_PROG(socket_sent, struct sock *sk)
{
	return name_worker(sk);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(socket_received, struct sock *sk)
{
	return name_worker(sk);
}

/* The processes that are there when an agent starts: one record for each. */
SEC("iter/task")
int list_processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process_event e = {};

	if (!task || task->pid != task->tgid)
		return 0;
	e.type = PROCESS_EXEC;
	if (process_of(&e.who, task))
		return 0;
	process_of(&e.parent, task->real_parent);
	bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

#define AF_INET 2
#define AF_INET6 10

/* The sockets that are there when an agent starts are noted, those that are known already are left as they are. */
SEC("iter/task_file")
int list_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct socket_owner fresh = {};
	struct file *file = ctx->file;
	struct socket_key key = {};
	struct socket *socket;
	struct sock *sk;
	__u32 family;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk)
		return 0;
	family = sk->__sk_common.skc_family;
	if ((family != AF_INET && family != AF_INET6) || !sk->__sk_common.skc_num)
		return 0;
	key.protocol = sk->sk_protocol;
	if ((key.protocol != IPPROTO_TCP && key.protocol != IPPROTO_UDP) || owner_place(&key, sk->__sk_common.skc_net.net->net_cookie))
		return 0;
	key.local_port = bpf_htons(sk->__sk_common.skc_num);
	if (key.protocol == IPPROTO_TCP && sk->__sk_common.skc_state != BPF_TCP_LISTEN) {
		__u32 *to = (__u32 *)key.remote;

		key.remote_port = sk->__sk_common.skc_dport;
		if (family == AF_INET) {
			to[2] = bpf_htonl(0xffff);
			to[3] = sk->__sk_common.skc_daddr;
		} else {
			to[0] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[0];
			to[1] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[1];
			to[2] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[2];
			to[3] = sk->__sk_common.skc_v6_daddr.in6_u.u6_addr32[3];
		}
	}
	if (process_of(&fresh.who, task))
		return 0;
	bpf_map_update_elem(&socket_owners, &key, &fresh, BPF_NOEXIST);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
