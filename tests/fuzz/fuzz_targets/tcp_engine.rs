#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_tests::fuzz::tcp_engine(bytes));
