#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_tests::fuzz::proxy_exchange(bytes));
