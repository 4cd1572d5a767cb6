/* DPDK's static inlines as functions, one call a burst, and assertions on the layout that Rust reads directly. */
#define _GNU_SOURCE
#include "wrapper.h"

#include <stddef.h>

/* mbuf.rs reads and writes these fields of struct rte_mbuf. */
_Static_assert(sizeof(struct rte_mbuf) == 128, "an mbuf header is two cache lines");
_Static_assert(offsetof(struct rte_mbuf, buf_addr) == 0, "buf_addr");
_Static_assert(offsetof(struct rte_mbuf, data_off) == 16, "data_off");
_Static_assert(offsetof(struct rte_mbuf, refcnt) == 18, "refcnt");
_Static_assert(offsetof(struct rte_mbuf, nb_segs) == 20, "nb_segs");
_Static_assert(offsetof(struct rte_mbuf, ol_flags) == 24, "ol_flags");
_Static_assert(offsetof(struct rte_mbuf, pkt_len) == 36, "pkt_len");
_Static_assert(offsetof(struct rte_mbuf, data_len) == 40, "data_len");
_Static_assert(offsetof(struct rte_mbuf, buf_len) == 54, "buf_len");
_Static_assert(offsetof(struct rte_mbuf, next) == 64, "next");
_Static_assert(offsetof(struct rte_mbuf, tx_offload) == 72, "tx_offload");

int sluice_errno(void)
{
	return rte_errno;
}

FILE *sluice_log_stream(sluice_log_write write)
{
	cookie_io_functions_t functions = { .write = write };
	return fopencookie(NULL, "w", functions);
}

uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

uint16_t sluice_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, mbufs, count);
}

struct rte_mbuf *sluice_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

int sluice_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void sluice_mbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

unsigned int sluice_pool_size(const struct rte_mempool *pool)
{
	return pool->size;
}

int sluice_link_is_up(uint16_t port)
{
	struct rte_eth_link link = { 0 };
	return rte_eth_link_get_nowait(port, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

int sluice_mbuf_hash(const struct rte_mbuf *mbuf, uint32_t *hash)
{
	*hash = mbuf->hash.rss;
	return (mbuf->ol_flags & RTE_MBUF_F_RX_RSS_HASH) != 0;
}

uint64_t sluice_tx_offload(uint64_t l2_len, uint64_t l3_len, uint64_t l4_len, uint64_t segment_bytes)
{
	return rte_mbuf_tx_offload(l2_len, l3_len, l4_len, segment_bytes, 0, 0, 0);
}
