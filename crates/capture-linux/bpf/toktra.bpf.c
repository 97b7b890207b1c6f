// SPDX-License-Identifier: Apache-2.0
//
// What the kernel does for Toktra on one cgroup and all cgroups below it.
//
// Division of labour: this file never looks into a payload's meaning. It copies the first
// outbound payload of a flow to a watched port into a ring buffer until user space has
// written a verdict for that flow, then passes, counts or drops. Only contexts of the UAPI
// are used (__sk_buff, bpf_sock, bpf_sock_ops, bpf_sock_addr), so one object runs on every
// kernel from 5.10 on.
//
// Maps, by who writes them:
//   verdicts  user space only (but for deletion at close)   flow id -> what to do
//   flows     kernel only (but for deletion once ignored)   flow id -> counts of a tracked flow
//   owners    kernel only                                   cookie  -> who connected
//   datagrams kernel only                                   cookie  -> flow ids of a UDP socket
//
// A flow id is the socket's cookie for TCP. One UDP socket may talk to many servers, so for
// UDP it is a hash of cookie, remote address and port with the top bit set, which no cookie has.
//
// The exits: every path that is not about a watched port ends after a bitmap test; an ignored
// flow costs one map lookup more. Whatever fails, the packet passes.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define PASS 1
#define DROP 0

#define AF_INET 2
#define AF_INET6 10

// As `abi.rs` has them.
#define VERDICT_NEED_MORE 0
#define VERDICT_IGNORE 1
#define VERDICT_METER 2
#define VERDICT_BLOCK 3

#define EVENT_PAYLOAD 1
#define EVENT_TRACKED 2
#define EVENT_CLOSED 3

#define FLOW_PREEXISTING 1
#define FLOW_UDP 2
#define FLOW_INBOUND_SEQUENCE 4
#define FLOW_TURN_COUNTED 8
#define FLOW_CONNECTED 16

#define STAT_LOST 0
#define STAT_TABLE_FULL 1
#define STAT_DROPPED 2
#define STATS 3

// One copy to user space, and how far into a stream copies are made. The reader of hellos
// gives up at 16 KiB; a prelude of a proxy may come before.
#define CHUNK 4096
#define STREAM_LIMIT (20 * 1024)
// Bytes copied for a flow in all, retransmissions and datagrams included.
#define COPY_LIMIT (64 * 1024)
// A request begins with at least this many bytes.
#define TURN_BYTES 128
#define SECOND_NS 1000000000ULL
// No receive window is larger than this in practice; a segment beyond is not counted.
#define WINDOW_LIMIT (1 << 25)
#define DATAGRAM_FLOWS 16

struct verdict {
	__u32 verdict;
	// While undecided and strict: stream position up to which payload may leave.
	__u32 grant;
};

struct flow {
	__u64 bytes_out;
	__u64 bytes_in;
	__u64 handshake_out;
	__u64 handshake_in;
	__u64 active_ns;
	__u64 last_in_ns;
	__u32 next_out;
	__u32 next_in;
	__u32 turns;
	__u32 burst;
	__u32 copied;
	__u32 grant;
	__u32 flags;
	__u32 unused;
};

struct owner {
	__u32 process;
	__u32 user;
	char command[16];
};

struct event {
	__u32 kind;
	__u32 length;
	__u64 id;
	__u64 cookie;
	__u64 position;
	__u64 at_ns;
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port;
	__u16 remote_port;
	__u32 interface;
	__u32 has_owner;
	struct owner owner;
	struct flow flow;
	__u8 payload[CHUNK];
};

#define EVENT_HEAD __builtin_offsetof(struct event, payload)
_Static_assert(EVENT_HEAD == 192, "the size of Event in abi.rs");

struct datagrams {
	__u32 count;
	__u32 unused;
	__u64 ids[DATAGRAM_FLOWS];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct verdict);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct owner);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct datagrams);
} datagrams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 19);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STATS);
	__type(key, __u32);
	__type(value, __u64);
} stats SEC(".maps");

// Monotonic nanoseconds until which strictness holds. User space renews it, so that a process
// that hangs does not hold the network.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} strict_until SEC(".maps");

// A bit per port, and what makes ids of UDP flows unpredictable. Set before loading.
const volatile __u8 watched_ports[8192] = {};
const volatile __u64 id_seed = 0;

struct packet {
	__u32 protocol;
	__u32 header; // bytes before the payload
	__u32 payload;
	__u32 sequence;
	__u8 syn;
	__u8 ack;
	__u8 rst;
	__u8 unused;
	__u16 remote_port; // host order; UDP only
	__u8 remote[16];   // UDP only
};

static __always_inline int is_watched(__u32 port)
{
	port &= 0xffff;
	return watched_ports[port >> 3] & (1 << (port & 7));
}

static __always_inline void count(__u32 which)
{
	__u64 *stat = bpf_map_lookup_elem(&stats, &which);
	if (stat)
		*stat += 1;
}

static __always_inline int is_strict(void)
{
	__u32 zero = 0;
	__u64 *until = bpf_map_lookup_elem(&strict_until, &zero);
	return until && *until && bpf_ktime_get_ns() < *until;
}

static __always_inline void map_v4(__u8 *to, __u32 address)
{
	__u32 *words = (__u32 *)to;
	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = address;
}

static __always_inline __u64 mix(__u64 value)
{
	value ^= value >> 33;
	value *= 0xff51afd7ed558ccdULL;
	value ^= value >> 33;
	value *= 0xc4ceb9fe1a85ec53ULL;
	value ^= value >> 33;
	return value;
}

static __always_inline __u64 datagram_id(__u64 cookie, const __u8 *remote, __u16 port)
{
	const __u32 *words = (const __u32 *)remote;
	__u64 id = mix(cookie ^ id_seed);
	id = mix(id ^ ((__u64)words[0] << 32 | words[1]));
	id = mix(id ^ ((__u64)words[2] << 32 | words[3]));
	return mix(id ^ port) | 1ULL << 63;
}

// Finds the transport header. 0: not TCP or UDP, a later fragment, or too many extensions.
static __always_inline int read_packet(struct __sk_buff *skb, int outbound, struct packet *packet)
{
	__u32 offset;
	__u32 protocol;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return 0;
		if (ip.frag_off & bpf_htons(0x1fff))
			return 0;
		offset = ip.ihl * 4;
		protocol = ip.protocol;
		map_v4(packet->remote, outbound ? ip.daddr : ip.saddr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return 0;
		offset = sizeof(ip);
		protocol = ip.nexthdr;
		if (outbound)
			__builtin_memcpy(packet->remote, &ip.daddr, 16);
		else
			__builtin_memcpy(packet->remote, &ip.saddr, 16);
#pragma unroll
		for (int i = 0; i < 3; i++) {
			__u8 extension[2];
			// Hop-by-hop (jumbograms of BIG TCP have one), routing, destination options.
			if (protocol != 0 && protocol != 43 && protocol != 60)
				break;
			if (bpf_skb_load_bytes(skb, offset, extension, 2))
				return 0;
			protocol = extension[0];
			offset += (extension[1] + 1) * 8;
		}
	} else {
		return 0;
	}

	packet->protocol = protocol;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr tcp;
		if (bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
			return 0;
		packet->header = offset + tcp.doff * 4;
		packet->sequence = bpf_ntohl(tcp.seq);
		packet->syn = tcp.syn;
		packet->ack = tcp.ack;
		packet->rst = tcp.rst;
		packet->remote_port = bpf_ntohs(outbound ? tcp.dest : tcp.source);
	} else if (protocol == IPPROTO_UDP) {
		struct udphdr udp;
		if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)))
			return 0;
		packet->header = offset + sizeof(udp);
		packet->remote_port = bpf_ntohs(outbound ? udp.dest : udp.source);
	} else {
		return 0;
	}
	packet->payload = skb->len > packet->header ? skb->len - packet->header : 0;
	return 1;
}

// The verifier refuses arithmetic on a pointer to a socket, which a merged load would need.
#define keep_branches_apart() asm volatile("" ::: "memory")

// The address as the socket has it, which a translation on the way does not change.
static __always_inline void read_remote(struct bpf_sock *sk, __u8 *remote)
{
	if (sk->family == AF_INET) {
		map_v4(remote, sk->dst_ip4);
		keep_branches_apart();
	} else {
		__u32 *words = (__u32 *)remote;
		words[0] = sk->dst_ip6[0];
		words[1] = sk->dst_ip6[1];
		words[2] = sk->dst_ip6[2];
		words[3] = sk->dst_ip6[3];
	}
}

static __always_inline void read_local(struct bpf_sock *sk, __u8 *local)
{
	if (sk->family == AF_INET) {
		map_v4(local, sk->src_ip4);
		keep_branches_apart();
	} else {
		__u32 *words = (__u32 *)local;
		words[0] = sk->src_ip6[0];
		words[1] = sk->src_ip6[1];
		words[2] = sk->src_ip6[2];
		words[3] = sk->src_ip6[3];
	}
}

// `dst_port` is 16 bits in network order in a field that was 32 bits wide before 5.18.
static __always_inline __u16 read_remote_port(struct bpf_sock *sk)
{
	return bpf_ntohs(*(volatile __u16 *)&sk->dst_port);
}

static __always_inline struct event *new_event(__u32 kind, __u64 id, __u64 cookie, const struct flow *flow)
{
	__u32 zero = 0;
	struct event *event = bpf_map_lookup_elem(&scratch, &zero);
	if (!event)
		return 0;
	event->kind = kind;
	event->length = 0;
	event->id = id;
	event->cookie = cookie;
	event->position = 0;
	event->at_ns = bpf_ktime_get_ns();
	event->has_owner = 0;
	event->flow = *flow;
	return event;
}

static __always_inline void describe(struct event *event, struct bpf_sock *sk, const __u8 *remote,
				     __u16 remote_port)
{
	__builtin_memcpy(event->remote, remote, 16);
	event->remote_port = remote_port;
	read_local(sk, event->local);
	event->local_port = sk->src_port;
	event->interface = sk->bound_dev_if;

	struct owner *owner = bpf_map_lookup_elem(&owners, &event->cookie);
	if (owner) {
		event->owner = *owner;
		event->has_owner = 1;
	}
}

// Copies up to a chunk of payload behind the event's head and sends it. Returns what it copied.
static __always_inline __u32 send_payload(struct __sk_buff *skb, struct event *event, __u32 offset,
					  __u32 length)
{
	if (length > CHUNK)
		length = CHUNK;
	if (length == 0)
		return 0;
	// Tell the verifier what it forgets between the test and the call.
	__u32 bounded = length - 1;
	asm volatile("%0 &= 4095" : "+r"(bounded));
	bounded += 1;
	if (bpf_skb_load_bytes(skb, offset, event->payload, bounded))
		return 0;
	event->length = bounded;
	if (bpf_ringbuf_output(&events, event, EVENT_HEAD + bounded, 0)) {
		count(STAT_LOST);
		return 0;
	}
	return bounded;
}

static __always_inline void send_head(struct event *event)
{
	event->length = 0;
	if (bpf_ringbuf_output(&events, event, EVENT_HEAD, 0))
		count(STAT_LOST);
}

static __always_inline void count_outbound(struct flow *flow, __u32 bytes)
{
	flow->burst += bytes;
	// The first burst of a flow, the hello, comes before anything inbound.
	if (flow->burst >= TURN_BYTES && !(flow->flags & FLOW_TURN_COUNTED)) {
		flow->flags |= FLOW_TURN_COUNTED;
		if (flow->bytes_in) {
			if (!flow->turns) {
				flow->handshake_out = flow->bytes_out;
				flow->handshake_in = flow->bytes_in;
			}
			flow->turns += 1;
		}
	}
	flow->bytes_out += bytes;
}

static __always_inline void count_inbound(struct flow *flow, __u32 bytes)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 gap = now - flow->last_in_ns;
	if (flow->last_in_ns && gap < SECOND_NS)
		flow->active_ns += gap;
	flow->last_in_ns = now;
	flow->burst = 0;
	flow->flags &= ~FLOW_TURN_COUNTED;
	flow->bytes_in += bytes;
}

// Remembers that a UDP socket has this flow, so that it can be forgotten with the socket.
static __always_inline void note_datagram_flow(__u64 cookie, __u64 id)
{
	struct datagrams *known = bpf_map_lookup_elem(&datagrams, &cookie);
	if (!known) {
		struct datagrams first = {};
		first.count = 1;
		first.ids[0] = id;
		bpf_map_update_elem(&datagrams, &cookie, &first, BPF_ANY);
		return;
	}
	// Beyond the sixteenth the oldest falls out; its entries age out of their maps.
	__u32 slot = known->count & (DATAGRAM_FLOWS - 1);
	known->ids[slot] = id;
	known->count += 1;
}

static __always_inline struct flow *new_flow(__u64 id, __u64 cookie, __u32 flags)
{
	struct flow fresh = {};
	fresh.flags = flags;
	if (bpf_map_update_elem(&flows, &id, &fresh, BPF_ANY)) {
		count(STAT_TABLE_FULL);
		return 0;
	}
	if (flags & FLOW_UDP)
		note_datagram_flow(cookie, id);
	return bpf_map_lookup_elem(&flows, &id);
}

// What is new in a TCP segment; moves the sequence on.
static __always_inline __u32 advance(__u32 *next, __u32 end)
{
	__s32 fresh = (__s32)(end - *next);
	if (fresh <= 0)
		return 0;
	*next = end;
	return fresh;
}

// Strict, and user space has not yet answered to all that it was shown. Once nothing more is
// copied for want of an answer, nothing waits either.
static __always_inline int must_wait(struct flow *flow, struct verdict *verdict)
{
	if (!flow->copied || flow->copied >= COPY_LIMIT)
		return 0;
	if (verdict && verdict->grant >= flow->bytes_out)
		return 0;
	return is_strict();
}

static __always_inline int egress_tcp(struct __sk_buff *skb, struct bpf_sock *sk, __u64 id, __u16 port,
				      struct verdict *verdict)
{
	struct packet packet = {};
	__u32 what = verdict ? verdict->verdict : VERDICT_NEED_MORE;
	if (!read_packet(skb, 1, &packet) || packet.protocol != IPPROTO_TCP)
		return PASS;
	if (what == VERDICT_BLOCK) {
		// A reset may go: the server should know.
		if (packet.payload == 0 || packet.rst)
			return PASS;
		count(STAT_DROPPED);
		return DROP;
	}

	int tracked_late = 0;
	struct flow *flow = bpf_map_lookup_elem(&flows, &id);
	if (!flow) {
		// After close() a socket may still send what it holds; that is no new flow.
		__u32 state = sk->state;
		if (packet.syn && !packet.ack) {
			flow = new_flow(id, id, 0);
		} else if (packet.payload && (state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE_WAIT)) {
			flow = new_flow(id, id, FLOW_PREEXISTING);
			tracked_late = what == VERDICT_METER;
		}
		if (!flow)
			return PASS;
		flow->next_out = packet.sequence + packet.syn;
	}
	if (packet.payload == 0)
		return PASS;

	__u32 first = packet.sequence + packet.syn;
	__u64 position = flow->bytes_out - (__u64)(flow->next_out - first);
	if ((__s32)(flow->next_out - first) < 0)
		position = flow->bytes_out + (first - flow->next_out);
	__u32 fresh = advance(&flow->next_out, first + packet.payload);
	if (fresh)
		count_outbound(flow, fresh);

	if (what == VERDICT_METER) {
		if (tracked_late) {
			struct event *event = new_event(EVENT_TRACKED, id, id, flow);
			if (event) {
				__u8 remote[16];
				read_remote(sk, remote);
				describe(event, sk, remote, port);
				send_head(event);
			}
		}
		return PASS;
	}

	if (position < STREAM_LIMIT && flow->copied < COPY_LIMIT) {
		struct event *event = new_event(EVENT_PAYLOAD, id, id, flow);
		if (!event)
			return PASS;
		__u8 remote[16];
		read_remote(sk, remote);
		describe(event, sk, remote, port);
		__u32 offset = packet.header;
		__u32 left = packet.payload;
#pragma unroll
		for (int i = 0; i < STREAM_LIMIT / CHUNK; i++) {
			event->position = position;
			__u32 sent = send_payload(skb, event, offset, left);
			if (sent == 0)
				break;
			offset += sent;
			position += sent;
			left -= sent;
			flow->copied += sent;
			if (position >= STREAM_LIMIT)
				break;
		}
	}
	// The first segment may always go, it holds the hello; more waits for user space.
	if (!flow->grant)
		flow->grant = flow->bytes_out;
	if (must_wait(flow, verdict) && flow->bytes_out > flow->grant) {
		count(STAT_DROPPED);
		return DROP;
	}
	return PASS;
}

static __always_inline int ingress_tcp(struct __sk_buff *skb, struct bpf_sock *sk, __u64 id,
				       struct verdict *verdict)
{
	struct packet packet = {};
	__u32 what = verdict ? verdict->verdict : VERDICT_NEED_MORE;
	struct flow *flow = bpf_map_lookup_elem(&flows, &id);
	if (!flow && what != VERDICT_BLOCK)
		return PASS;
	if (!read_packet(skb, 0, &packet) || packet.protocol != IPPROTO_TCP)
		return PASS;
	if (what == VERDICT_BLOCK) {
		if (packet.payload == 0 || packet.rst)
			return PASS;
		count(STAT_DROPPED);
		return DROP;
	}
	if (!flow)
		return PASS;
	if (packet.syn) {
		flow->next_in = packet.sequence + 1;
		flow->flags |= FLOW_INBOUND_SEQUENCE;
	}
	if (packet.payload == 0)
		return PASS;
	// A reply cannot come before its request; holding it holds the next request too.
	if (what == VERDICT_NEED_MORE && !(flow->flags & FLOW_PREEXISTING) && must_wait(flow, verdict)) {
		count(STAT_DROPPED);
		return DROP;
	}

	__u32 first = packet.sequence + packet.syn;
	struct bpf_tcp_sock *tcp = bpf_tcp_sock(sk);
	if (tcp) {
		if (!(flow->flags & FLOW_INBOUND_SEQUENCE)) {
			flow->next_in = tcp->rcv_nxt;
			flow->flags |= FLOW_INBOUND_SEQUENCE;
		}
		// This runs before TCP's own check of the window.
		__s32 ahead = (__s32)(first - tcp->rcv_nxt);
		if (ahead > WINDOW_LIMIT || ahead < -WINDOW_LIMIT)
			return PASS;
	}
	__u32 fresh = advance(&flow->next_in, first + packet.payload);
	if (fresh)
		count_inbound(flow, fresh);
	return PASS;
}

// Of a QUIC packet, whether it may hold a request: anything but an Initial (RFC 8999, RFC 9000
// 17.2, RFC 9369 3.2).
static __always_inline int may_hold_request(struct __sk_buff *skb, __u32 offset)
{
	__u8 head[5];
	if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
		return 0;
	if (!(head[0] & 0x80))
		return 1;
	__u32 type = (head[0] >> 4) & 3;
	int second = head[1] == 0x6b && head[2] == 0x33 && head[3] == 0x43 && head[4] == 0xcf;
	return type != (second ? 1 : 0);
}

static __always_inline int packet_udp(struct __sk_buff *skb, struct bpf_sock *sk, int outbound)
{
	struct packet packet = {};
	if (!read_packet(skb, outbound, &packet) || packet.protocol != IPPROTO_UDP)
		return PASS;
	__u16 port = read_remote_port(sk);
	__u32 flags = FLOW_UDP;
	if (port) {
		flags |= FLOW_CONNECTED;
		read_remote(sk, packet.remote);
	} else {
		port = packet.remote_port;
	}
	if (!is_watched(port))
		return PASS;

	__u64 cookie = bpf_get_socket_cookie(skb);
	__u64 id = datagram_id(cookie, packet.remote, port);
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &id);
	__u32 what = verdict ? verdict->verdict : VERDICT_NEED_MORE;
	if (what == VERDICT_IGNORE)
		return PASS;
	if (what == VERDICT_BLOCK) {
		count(STAT_DROPPED);
		return DROP;
	}
	struct flow *flow = bpf_map_lookup_elem(&flows, &id);
	int tracked_late = 0;
	if (!flow) {
		if (!outbound || packet.payload == 0)
			return PASS;
		// Its connect or first send was not seen.
		if (!bpf_map_lookup_elem(&owners, &cookie))
			flags |= FLOW_PREEXISTING;
		tracked_late = what == VERDICT_METER;
		flow = new_flow(id, cookie, flags);
		if (!flow)
			return PASS;
	}
	if (packet.payload == 0)
		return PASS;
	if (!outbound) {
		if (what == VERDICT_NEED_MORE && must_wait(flow, verdict)) {
			count(STAT_DROPPED);
			return DROP;
		}
		count_inbound(flow, packet.payload);
		return PASS;
	}
	count_outbound(flow, packet.payload);
	if (what == VERDICT_METER && !tracked_late)
		return PASS;

	if (flow->copied < COPY_LIMIT || tracked_late) {
		struct event *event =
			new_event(tracked_late ? EVENT_TRACKED : EVENT_PAYLOAD, id, cookie, flow);
		if (!event)
			return PASS;
		describe(event, sk, packet.remote, port);
		if (tracked_late) {
			send_head(event);
			return PASS;
		}
		// A batch of datagrams (UDP_SEGMENT) is one packet here; its segments are parted again.
		__u32 segment = skb->gso_size;
		__u32 offset = packet.header;
		__u32 left = packet.payload;
		if (segment == 0 || segment > left)
			segment = left;
#pragma unroll
		for (int i = 0; i < 4; i++) {
			__u32 take = left < segment ? left : segment;
			__u32 sent = send_payload(skb, event, offset, take);
			if (sent == 0)
				break;
			offset += take;
			left -= take;
			flow->copied += sent;
		}
	}
	if (must_wait(flow, verdict) && may_hold_request(skb, packet.header)) {
		count(STAT_DROPPED);
		return DROP;
	}
	return PASS;
}

static __always_inline int packet(struct __sk_buff *skb, int outbound)
{
	struct bpf_sock *sk = skb->sk;
	if (!sk)
		return PASS;
	__u16 port = read_remote_port(sk);
	// A socket without a remote port is a listener, or UDP that names its peer in each send.
	if (port && !is_watched(port))
		return PASS;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return PASS;
	if (sk->protocol == IPPROTO_UDP)
		return packet_udp(skb, sk, outbound);
	if (sk->protocol != IPPROTO_TCP || !port)
		return PASS;

	__u64 id = bpf_get_socket_cookie(skb);
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &id);
	if (verdict && verdict->verdict == VERDICT_IGNORE)
		return PASS;
	if (outbound)
		return egress_tcp(skb, sk, id, port, verdict);
	return ingress_tcp(skb, sk, id, verdict);
}

SEC("cgroup_skb/egress")
int toktra_egress(struct __sk_buff *skb)
{
	return packet(skb, 1);
}

SEC("cgroup_skb/ingress")
int toktra_ingress(struct __sk_buff *skb)
{
	return packet(skb, 0);
}

static __always_inline int note_owner(struct bpf_sock_addr *context)
{
	if (!is_watched(bpf_ntohs((__u16)context->user_port)))
		return PASS;
	if (context->type != 1 && context->type != 2) // SOCK_STREAM, SOCK_DGRAM
		return PASS;
	__u64 cookie = bpf_get_socket_cookie(context);
	struct owner owner = {};
	owner.process = bpf_get_current_pid_tgid() >> 32;
	owner.user = (__u32)bpf_get_current_uid_gid();
	bpf_get_current_comm(owner.command, sizeof(owner.command));
	bpf_map_update_elem(&owners, &cookie, &owner, BPF_ANY);
	return PASS;
}

SEC("cgroup/connect4")
int toktra_connect4(struct bpf_sock_addr *context)
{
	return note_owner(context);
}

SEC("cgroup/connect6")
int toktra_connect6(struct bpf_sock_addr *context)
{
	return note_owner(context);
}

SEC("cgroup/sendmsg4")
int toktra_sendmsg4(struct bpf_sock_addr *context)
{
	return note_owner(context);
}

SEC("cgroup/sendmsg6")
int toktra_sendmsg6(struct bpf_sock_addr *context)
{
	return note_owner(context);
}

// Sends a flow's last counts if user space knows of it, and forgets it.
static __always_inline void close_flow(__u64 id, __u64 cookie)
{
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &id);
	struct flow *flow = bpf_map_lookup_elem(&flows, &id);
	// Not ignored: user space may be about to write a verdict, and removes it when it reads this.
	int is_known = flow && (flow->copied || verdict);
	if (is_known && !(verdict && verdict->verdict == VERDICT_IGNORE)) {
		struct event *event = new_event(EVENT_CLOSED, id, cookie, flow);
		if (event)
			send_head(event);
	}
	if (verdict)
		bpf_map_delete_elem(&verdicts, &id);
	if (flow)
		bpf_map_delete_elem(&flows, &id);
}

SEC("sockops")
int toktra_sockops(struct bpf_sock_ops *context)
{
	// `remote_port` is network order in the upper or lower half, `bpf_ntohl` is right for both.
	__u32 port = bpf_ntohl(context->remote_port);
	if (!is_watched(port))
		return 1;
	__u64 cookie = bpf_get_socket_cookie(context);
	switch (context->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB: {
		// Somebody connected to this machine: never a request to a provider.
		struct verdict verdict = { .verdict = VERDICT_IGNORE };
		bpf_map_update_elem(&verdicts, &cookie, &verdict, BPF_ANY);
		bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	}
	case BPF_SOCK_OPS_STATE_CB:
		if (context->args[1] == BPF_TCP_CLOSE) {
			close_flow(cookie, cookie);
			bpf_map_delete_elem(&owners, &cookie);
		}
		break;
	}
	return 1;
}

SEC("cgroup/sock_release")
int toktra_release(struct bpf_sock *sk)
{
	__u64 cookie = bpf_get_socket_cookie(sk);
	bpf_map_delete_elem(&owners, &cookie);
	if (sk->protocol == IPPROTO_UDP) {
		struct datagrams *known = bpf_map_lookup_elem(&datagrams, &cookie);
		if (known) {
			for (int i = 0; i < DATAGRAM_FLOWS; i++) {
				__u64 id = known->ids[i];
				if (id)
					close_flow(id, cookie);
			}
			bpf_map_delete_elem(&datagrams, &cookie);
		}
	}
	if (sk->protocol != IPPROTO_TCP)
		return 1;
	// A connection older than these programs has no callback at its end.
	struct flow *flow = bpf_map_lookup_elem(&flows, &cookie);
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &cookie);
	if (flow && flow->flags & FLOW_PREEXISTING)
		close_flow(cookie, cookie);
	else if (!flow && verdict)
		bpf_map_delete_elem(&verdicts, &cookie);
	return 1;
}

char license_text[] SEC("license") = "Apache-2.0";
