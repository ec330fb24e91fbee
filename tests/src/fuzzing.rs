//! The bodies of the fuzz targets in `fuzz/`, so that the tests can run them too, for a short while and over the
//! inputs that once failed.

use switch_common::key::{FlowKey, Kind};
use switch_common::parse::{FrameView, OffloadedTag, PacketMeta, parse, parse_common, parse_frame};

/// The packet parser: any bytes, any metadata.
///
/// The first eight bytes choose the metadata, the rest is the frame, in an allocation of its own size so that a
/// sanitizer sees every byte read past it.
pub fn parser(input: &[u8]) {
    let Some((choice, frame)) = input.split_first_chunk::<8>() else { return };
    let frame: Box<[u8]> = frame.into();
    let meta = PacketMeta {
        in_port: u16::from_le_bytes([choice[0], choice[1]]),
        recirc_id: u32::from(choice[2] & 1),
        tag: match choice[3] & 3 {
            0 => OffloadedTag { tpid: 0x8100u16.to_be(), tci: u16::from(choice[4]) },
            1 => OffloadedTag { tpid: 0x88a8u16.to_be(), tci: u16::from(choice[4]) },
            _ => OffloadedTag::default(),
        },
        skb_mark: u32::from(choice[5] & 1),
        skb_priority: 0,
        dp_hash: u32::from(choice[6] & 1),
        vlan_limit: choice[7] % 3,
    };
    let start = frame.as_ptr() as usize;
    // SAFETY: the view is of `frame`, which lives to the end of the function.
    let view = unsafe { FrameView::new(start, start + frame.len()) };
    // Garbage in the key must not show through.
    let mut dirty = FlowKey::from_words([0xa5a5_a5a5_a5a5_a5a5; switch_common::key::KEY_WORDS]);
    // SAFETY: the view is readable and the key is ours.
    let parsed = unsafe { parse(view, &meta, &mut dirty) };
    let Some((key, again)) = parse_frame(&frame, &meta) else {
        assert!(parsed.is_none() && frame.len() < 14);
        return;
    };
    let parsed = parsed.expect("both parse or neither");
    assert_eq!(parsed, again);
    assert_eq!(parsed.kind, key.kind());
    let words = parsed.kind.words();
    assert_eq!(dirty.words()[..words], key.words()[..words]);
    assert!(key.words()[words..].iter().all(|w| *w == 0));
    assert!(usize::from(parsed.l3) <= frame.len() + 8 && parsed.l4 >= parsed.l3);
    let mut normal = key;
    normal.normalize_kind();
    assert_eq!(normal.kind(), parsed.kind, "{key:?}");

    let plain = meta.tag.tpid == 0 && meta.skb_mark | meta.dp_hash | meta.recirc_id == 0;
    let mut common = FlowKey::ZERO;
    // SAFETY: as above.
    if plain && unsafe { parse_common(view, meta.in_port, &mut common) } {
        assert_eq!(parsed.kind, Kind::Short);
        assert_eq!(common.words()[..5], key.words()[..5]);
    }
}

/// Runs a body over `rounds` inputs made by changing the seeds, always the same ones.
pub fn short_run(seeds: &[Vec<u8>], rounds: u32, body: fn(&[u8])) {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..rounds {
        let mut input = seeds[round as usize % seeds.len()].clone();
        for _ in 0..random() % 6 {
            if input.is_empty() {
                break;
            }
            let at = random() as usize % input.len();
            match random() % 4 {
                0 => input.truncate(at),
                1 => input.insert(at, random() as u8),
                _ => input[at] = [random() as u8, 0, 0xff, 0x81, 44, 58, 6, 0x45][random() as usize % 8],
            }
        }
        body(&input);
    }
}
