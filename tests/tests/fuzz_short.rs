//! A short, repeatable run of each fuzz target.

use switch_tests::fuzzing::{parser, short_run};
use switch_tests::lab::build;

const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Frames of every shape that the parser knows, each behind eight bytes of choice.
fn frames() -> Vec<Vec<u8>> {
    let udp = build::udp(A, B, ([10, 0, 0, 1], [10, 0, 0, 2]), (7, 9), &[1; 40]);
    let mut tcp = udp.clone();
    tcp[23] = 6;
    let mut arp = build::ethernet(A, B, 0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend_from_slice(&[3; 20]);
    let v6 = |next: u8, payload: &[u8]| {
        let mut h = vec![0x60, 0x12, 0x34, 0x56, 0, payload.len() as u8, next, 64];
        h.extend_from_slice(&[0xfd; 32]);
        h.extend_from_slice(payload);
        build::ethernet(A, B, 0x86dd, &h)
    };
    let extensions =
        [&[60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9][..], &[5; 24]].concat();
    let mut nd = vec![135, 0, 0, 0, 0, 0, 0, 0];
    nd.extend_from_slice(&[0xfe; 16]);
    nd.extend_from_slice(&[1, 1, 2, 0, 0, 0, 0, 1, 2, 1, 2, 0, 0, 0, 0, 2]);
    let mpls = build::ethernet(A, B, 0x8847, &[0, 0, 0x10, 64, 0, 0, 0x20, 64, 0, 0, 0x31, 64, 1, 2, 3, 4]);
    let snap = build::ethernet(A, B, 40, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0]);
    let all = vec![
        build::tagged(&udp, 0x8100, 0x2005),
        build::tagged(&build::tagged(&tcp, 0x8100, 7), 0x88a8, 9),
        udp,
        tcp,
        arp,
        v6(17, &[1; 20]),
        v6(0, &extensions),
        v6(58, &nd),
        mpls,
        snap,
        vec![0; 13],
    ];
    all.into_iter()
        .flat_map(|f| {
            [[&[1, 0, 0, 2, 0, 0, 0, 2][..], &f].concat(), [&[1, 0, 1, 0, 5, 1, 1, 1][..], &f].concat()]
        })
        .collect()
}

#[test]
fn parser_holds() {
    short_run(&frames(), 400_000, parser);
}
