//! Time of every operation, by criterion: `cargo bench -p sluice-benches`.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_benches::operations::OPERATIONS;
use sluice_benches::picks::PICKS;

fn operations(criterion: &mut Criterion) {
    for operation in OPERATIONS.iter().chain(PICKS) {
        let (group, name) = operation.name.split_once('/').unwrap_or((operation.name, "all"));
        let mut group = criterion.benchmark_group(group);
        group.throughput(Throughput::Elements(operation.each));
        let mut call = None;
        group.bench_function(name, |bencher| bencher.iter(call.get_or_insert_with(|| (operation.make)())));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = operations
}
criterion_main!(benches);
