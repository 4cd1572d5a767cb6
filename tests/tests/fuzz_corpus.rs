//! Every input in the fuzz targets' corpora, and what fuzzing once found, without a fuzzer.

use std::path::Path;

fn run_corpus(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("a corpus") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        body(&std::fs::read(&path).expect("a readable input"));
        count += 1;
    }
    assert!(count > 0, "{target} has a corpus");
}

#[test]
fn packet_parser() {
    run_corpus("packet_parser", sluice_tests::fuzz::packet_parser);
}

#[test]
fn configuration() {
    run_corpus("configuration", sluice_tests::fuzz::configuration);
}

#[test]
fn worker_burst() {
    run_corpus("worker_burst", sluice_tests::fuzz::worker_burst);
}

#[test]
fn http_requests() {
    run_corpus("http_requests", sluice_tests::fuzz::http_requests);
}

#[test]
fn http_chunks() {
    run_corpus("http_chunks", sluice_tests::fuzz::http_chunks);
}

#[test]
fn http_responses() {
    run_corpus("http_responses", sluice_tests::fuzz::http_responses);
}

#[test]
fn proxy_header() {
    run_corpus("proxy_header", sluice_tests::fuzz::proxy_header);
}

#[test]
fn proxy_exchange() {
    run_corpus("proxy_exchange", sluice_tests::fuzz::proxy_exchange);
}

#[test]
fn tcp_engine() {
    run_corpus("tcp_engine", sluice_tests::fuzz::tcp_engine);
}
