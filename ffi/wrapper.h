/* What bindgen reads: DPDK's headers, the shims for its static inlines, and constants that are macros there. */
#ifndef SLUICE_WRAPPER_H
#define SLUICE_WRAPPER_H

#include <stdio.h>

#include <rte_alarm.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* RTE_BIT64 macros are invisible to bindgen; these are their values. */
static const uint64_t SLUICE_RX_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SLUICE_RX_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SLUICE_RX_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t SLUICE_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SLUICE_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SLUICE_TX_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SLUICE_TX_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t SLUICE_TX_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t SLUICE_TX_TCP_TSO = RTE_ETH_TX_OFFLOAD_TCP_TSO;
static const uint64_t SLUICE_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SLUICE_RSS_TCP_UDP =
	RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP |
	RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t SLUICE_RSS_IP = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_IPV6;

typedef ssize_t (*sluice_log_write)(void *cookie, const char *text, size_t length);

int sluice_errno(void);
FILE *sluice_log_stream(sluice_log_write write);
uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t sluice_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
struct rte_mbuf *sluice_mbuf_alloc(struct rte_mempool *pool);
int sluice_mbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void sluice_mbuf_free(struct rte_mbuf *mbuf);
unsigned int sluice_pool_size(const struct rte_mempool *pool);
int sluice_link_is_up(uint16_t port);
int sluice_mbuf_hash(const struct rte_mbuf *mbuf, uint32_t *hash);
uint64_t sluice_tx_offload(uint64_t l2_len, uint64_t l3_len, uint64_t l4_len, uint64_t segment_bytes);

#endif
