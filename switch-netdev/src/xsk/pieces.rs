//! Frames that come in several pieces (AF_XDP multi-buffer), put together again.

/// A frame under assembly. Pieces of one frame follow each other on the ring, each but the last marked as
/// continued; they may lie in different batches.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    limit: usize,
    open: bool,
    too_long: bool,
}

/// What a piece brought about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is a frame by itself, to be used where it lies.
    Whole,
    /// More is to come.
    Open,
    /// The frame is complete, in [`Pieces::frame`].
    Last,
    /// The frame is complete and was too long: it is lost.
    TooLong,
}

impl Pieces {
    /// For frames of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Pieces {
        Pieces { bytes: Vec::new(), limit, open: false, too_long: false }
    }

    /// Takes the next piece from the ring.
    pub(super) fn push(&mut self, piece: &[u8], continued: bool) -> Piece {
        if !self.open && !continued {
            return Piece::Whole;
        }
        if !self.open {
            self.bytes.clear();
            self.open = true;
            self.too_long = false;
        }
        self.too_long |= self.bytes.len() + piece.len() > self.limit;
        if !self.too_long {
            self.bytes.extend_from_slice(piece);
        }
        if continued {
            return Piece::Open;
        }
        self.open = false;
        if self.too_long { Piece::TooLong } else { Piece::Last }
    }

    pub(super) fn frame(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_frames() {
        let mut pieces = Pieces::new(8);
        assert_eq!(pieces.push(b"abc", false), Piece::Whole);
        assert_eq!(pieces.push(b"abc", true), Piece::Open);
        assert_eq!(pieces.push(b"def", true), Piece::Open);
        assert_eq!(pieces.push(b"gh", false), Piece::Last);
        assert_eq!(pieces.frame(), b"abcdefgh");
        assert_eq!(pieces.push(b"x", false), Piece::Whole);
    }

    #[test]
    fn an_endless_frame_holds_no_more_than_its_limit() {
        let mut pieces = Pieces::new(8);
        for _ in 0..100 {
            assert_eq!(pieces.push(b"abc", true), Piece::Open);
        }
        assert!(pieces.frame().len() <= 8);
        assert_eq!(pieces.push(b"abc", false), Piece::TooLong);
        assert_eq!(pieces.push(b"a", true), Piece::Open);
        assert_eq!(pieces.push(b"b", false), Piece::Last);
        assert_eq!(pieces.frame(), b"ab");
    }
}
