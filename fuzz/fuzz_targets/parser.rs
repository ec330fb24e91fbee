#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| switch_tests::fuzzing::parser(input));
