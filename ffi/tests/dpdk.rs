//! Packet memory and devices of a real DPDK, without hugepages, root or NICs. One EAL for the whole binary.

use std::ops::Deref;
use std::sync::mpsc::sync_channel;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use sluice_ffi::dpdk::{
    BURST_MAX, Burst, DpdkError, Eal, EthDev, HEADROOM_BYTES, HashPlan, LogTo, Mbuf, Mempool, default_args,
    register_thread,
};

fn start() -> Eal {
    let own: Vec<String> =
        ["--no-huge", "-m", "128", "--no-shconf", "--no-pci", "--no-telemetry"].map(String::from).to_vec();
    Eal::init(&default_args(&own, &[]), LogTo::Quiet).expect("EAL starts without hugepages")
}

/// DPDK, and nobody takes all of its memory meanwhile.
struct Shared {
    eal: Eal,
    _guard: RwLockReadGuard<'static, ()>,
}

fn eal() -> Shared {
    Shared { eal: start(), _guard: MEMORY.read().unwrap_or_else(PoisonError::into_inner) }
}

impl Deref for Shared {
    type Target = Eal;

    fn deref(&self) -> &Eal {
        &self.eal
    }
}

/// Written by the test that takes all there is.
static MEMORY: RwLock<()> = RwLock::new(());

#[test]
fn a_second_start_with_other_arguments_is_refused() {
    let first = *eal();
    assert_eq!(first, *eal());
    assert_eq!(Eal::init(&["--no-huge".into()], LogTo::Quiet), Err(DpdkError::AlreadyStarted));
    assert_eq!(Eal::running(), Some(first));
}

#[test]
fn mbufs_come_home() {
    let pool = Mempool::new(*eal(), 255, 2048, -1).expect("pool");
    assert_eq!((pool.count(), pool.in_use()), (255, 0));
    let taken: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((taken.len(), pool.in_use()), (255, 255));
    assert!(pool.copy_of(&[1]).is_none(), "an empty pool says so");
    std::thread::spawn(move || drop(taken)).join().expect("freed on another thread");
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_registered_thread_has_a_cache_and_gives_it_back() {
    let pool = Mempool::new(*eal(), 1023, 2048, -1).expect("pool");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = register_thread().expect("an lcore id is free");
            assert!(register_thread().is_err(), "once a thread");
            drop(pool.alloc().expect("an mbuf"));
            assert_eq!(pool.in_use(), 0, "what the cache holds is not in use");
        });
    });
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_cache_keeps_so_many_and_no_more() {
    let pool = Mempool::new(*eal(), 2047, 2048, -1).expect("pool");
    let mut free: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    let (give, taken) = sync_channel::<Mbuf>(0);
    let (done, is_done) = sync_channel(0);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _guard = register_thread().expect("an lcore id is free");
            taken.into_iter().try_for_each(|mbuf| {
                drop(mbuf);
                done.send(())
            })
        });
        let (mut kept, mut most_kept) = (0, 0);
        for _ in 0..4 * Mempool::CACHED_MAX {
            give.send(free.pop().expect("an mbuf")).expect("the thread runs");
            is_done.recv().expect("the thread runs");
            let back = free.len();
            free.extend(std::iter::from_fn(|| pool.alloc()));
            kept = kept + 1 - (free.len() - back);
            most_kept = most_kept.max(kept);
        }
        drop(give);
        assert_eq!(most_kept, Mempool::CACHED_MAX);
    });
    drop(free);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn front_and_back_move_within_the_room() {
    let pool = Mempool::new(*eal(), 7, 2048, -1).expect("pool");
    let mut mbuf = pool.copy_of(&[1, 2, 3, 4, 5, 6]).expect("an mbuf");
    mbuf.trim_front(2);
    assert_eq!(mbuf.bytes(), [3, 4, 5, 6]);
    assert!(mbuf.prepend(1));
    assert_eq!(mbuf.bytes(), [2, 3, 4, 5, 6]);
    mbuf.truncate(3);
    mbuf.truncate(4);
    assert_eq!((mbuf.bytes(), mbuf.chain_len()), (&[2, 3, 4][..], 3));
    assert!(mbuf.append(1));
    mbuf.bytes_mut()[3] = 9;
    assert_eq!(mbuf.bytes(), [2, 3, 4, 9]);
    assert!(!mbuf.prepend(HEADROOM_BYTES + 2) && mbuf.prepend(HEADROOM_BYTES + 1), "up to the first byte");
    assert!(!mbuf.append(2048) && mbuf.append(2048 - 5), "up to the last");
    assert_eq!(mbuf.len(), HEADROOM_BYTES + 2048);
    mbuf.trim_front(usize::MAX);
    assert!(mbuf.is_empty() && mbuf.chain_len() == 0);
}

#[test]
fn a_chain_holds_what_one_mbuf_cannot() {
    let pool = Mempool::new(*eal(), 63, 2048, -1).expect("pool");
    let bytes: Vec<u8> = (0..5000u32).map(|index| index as u8).collect();
    assert!(pool.copy_of(&bytes).is_none());
    assert_eq!(pool.in_use(), 0, "a refused copy leaks nothing");
    let mut chain = pool.chain_of(&bytes).expect("three mbufs");
    assert_eq!((chain.is_chain(), chain.chain_len(), chain.len(), pool.in_use()), (true, 5000, 2048, 3));
    let mut copy = vec![0; 6000];
    assert_eq!(chain.copy_to(&mut copy), 5000);
    assert_eq!(copy[..5000], bytes);
    assert_eq!(chain.copy_to(&mut copy[..10]), 10);
    assert!(!chain.append(1), "room behind the first segment is not the packet's end");
    drop(chain);
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn a_dropped_pool_outlives_its_mbufs_and_is_freed_then() {
    let eal = start();
    let _alone = MEMORY.write().unwrap_or_else(PoisonError::into_inner);
    let take_all = || Mempool::new(eal, 20_000, 2048, -1);
    let pool = take_all().expect("pool");
    let mut mbuf = pool.copy_of(&[7; 60]).expect("an mbuf");
    drop(pool);
    let refused = take_all().expect_err("128 MB hold two such pools no more");
    assert!(refused.to_string().contains("-m"), "{refused}");
    mbuf.bytes_mut()[0] = 8;
    assert_eq!(mbuf.bytes()[..2], [8, 7]);
    drop(mbuf);
    take_all().expect("the first pool's memory is back");
}

#[test]
fn packets_come_around_a_ring_in_order() {
    let eal = eal();
    let pool = Mempool::new(*eal, 511, 2048, -1).expect("pool");
    let device = EthDev::open(*eal, "net_ring0").expect("device");
    assert!(EthDev::open(*eal, "net_ring0").is_err(), "one owner");
    let mut started = device.start(std::slice::from_ref(&pool), &HashPlan::NONE).expect("start");
    assert!(started.port.is_link_up());
    let (rx, tx) = &mut started.queues[0];
    let mut burst = Burst::new();
    for index in 0..BURST_MAX {
        burst.push(pool.copy_of(&[index as u8; 60]).expect("an mbuf")).expect("room");
    }
    assert!(burst.is_full() && burst.push(pool.alloc().expect("an mbuf")).is_err());
    assert_eq!((tx.tx(&mut burst), burst.len()), (BURST_MAX, 0));
    let mut seen = Vec::new();
    assert_eq!(rx.rx(BURST_MAX, |mbuf| seen.push(mbuf.bytes().to_vec())), BURST_MAX);
    assert!(seen.iter().zip(0..).all(|(bytes, index)| *bytes == [index as u8; 60]));
    assert_eq!(started.port.stats().tx_packets, BURST_MAX as u64);
    drop(started);
    assert_eq!(pool.in_use(), 0);
    EthDev::open(*eal, "net_ring0").expect("closed devices open again");
}

#[test]
fn a_full_device_leaves_the_rest_in_order() {
    let eal = eal();
    let pool = Mempool::new(*eal, 4095, 2048, -1).expect("pool");
    let mut started = EthDev::open(*eal, "net_ring1")
        .expect("device")
        .start(std::slice::from_ref(&pool), &HashPlan::NONE)
        .expect("start");
    let (rx, tx) = &mut started.queues[0];
    let (mut burst, mut next) = (Burst::new(), 0u32);
    while !burst.is_full() {
        while let Some(mbuf) = (!burst.is_full()).then(|| pool.copy_of(&next.to_be_bytes())).flatten() {
            burst.push(mbuf).expect("room");
            next += 1;
        }
        tx.tx(&mut burst);
    }
    assert!(next < 4095, "the ring is shorter than the pool");
    let mut expected = 0u32;
    let mut check = |mbuf: Mbuf| {
        assert_eq!(mbuf.bytes(), expected.to_be_bytes());
        expected += 1;
    };
    while rx.rx(BURST_MAX, &mut check) > 0 || tx.tx(&mut burst) > 0 {}
    assert_eq!(expected, next);
}

/// Four threads send what a fifth has received, twenty times what the pool holds.
#[test]
fn what_others_send_comes_back_to_the_pool_it_was_received_from() {
    const SENDERS: usize = 4;
    let eal = eal();
    let pool = Mempool::new(*eal, 3071, 2048, -1).expect("pool");
    let device = EthDev::open(*eal, "net_null0").expect("device");
    let mut queues = device.start(&vec![pool.clone(); 1 + SENDERS], &HashPlan::NONE).expect("start").queues;
    let before = pool.in_use();
    let (rx, _) = &mut queues.remove(0);
    std::thread::scope(|scope| {
        let lane = |(_, mut tx): (_, sluice_ffi::dpdk::TxQueue)| {
            let (give, taken) = sync_channel::<Burst>(0);
            let (done, is_done) = sync_channel(0);
            scope.spawn(move || {
                let _guard = register_thread().expect("an lcore id is free");
                for mut burst in taken {
                    assert_eq!((tx.tx(&mut burst), burst.len()), (BURST_MAX, 0));
                    done.send(()).expect("the receiver waits");
                }
            });
            (give, is_done)
        };
        let lanes: Vec<_> = queues.into_iter().map(lane).collect();
        let _guard = register_thread().expect("an lcore id is free");
        for number in 0..20 * pool.count() / BURST_MAX {
            let mut burst = Burst::new();
            let received = rx.rx(BURST_MAX, |mbuf| burst.push(mbuf).expect("room"));
            assert_eq!(received, BURST_MAX, "burst {number}");
            let (give, is_done) = &lanes[number % SENDERS];
            give.send(burst).expect("the sender waits");
            is_done.recv().expect("the sender runs");
        }
    });
    assert_eq!((before, pool.in_use()), (0, 0));
}

#[test]
fn errors_carry_dpdks_reason() {
    let missing = EthDev::open(*eal(), "net_nonsense0,x=1").expect_err("no such driver");
    assert!(matches!(&missing, DpdkError::NoSuchDevice { device, .. } if device == "net_nonsense0,x=1"));
    assert!(missing.to_string().contains("EAL"), "{missing}");
    let eal = eal();
    let pools: Vec<_> = (0..17).map(|_| Mempool::new(*eal, 63, 2048, -1).expect("pool")).collect();
    let few = EthDev::open(*eal, "net_ring2")
        .expect("device")
        .start(&pools, &HashPlan::NONE)
        .expect_err("a ring has 16");
    assert!(matches!(few, DpdkError::TooFewQueues { wanted: 17, queues_max: 1..=16 }), "{few}");
}
