//! What still fits on the data disk. Pure.
//!
//! A volume's room is taken when it is made, so that no write below a mounted volume ever finds the
//! disk full. A part of the disk is kept back: for the database, for images, and for whoever has to
//! make room again.

/// The least that is kept back, in bytes, and the most.
const RESERVE: (u64, u64) = (64 << 20, 2 << 30);

/// A disk's room in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All there is.
    pub total: u64,
    /// What can still be taken.
    pub free: u64,
}

/// There is not enough room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that were asked for.
    pub wanted: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes of these that are kept back.
    pub reserve: u64,
}

impl Shortage {
    /// The most that would fit.
    pub fn fits(&self) -> u64 {
        self.free.saturating_sub(self.reserve)
    }

    /// The most that would fit, as somebody may ask for it: whole mebibytes, if it is one at least.
    pub fn to_ask_for(&self) -> Option<u64> {
        let whole = self.fits() >> 20 << 20;
        (whole > 0).then_some(whole)
    }
}

/// Bytes of a disk that volumes leave free: a twentieth, within bounds.
pub fn reserve(total: u64) -> u64 {
    (total / 20).clamp(RESERVE.0, RESERVE.1)
}

/// Whether so many more bytes fit.
pub fn admit(room: Room, wanted: u64) -> Result<(), Shortage> {
    let shortage = Shortage { wanted, free: room.free, reserve: reserve(room.total) };
    if wanted <= shortage.fits() { Ok(()) } else { Err(shortage) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_leaves_the_reserve_alone_fits() {
        let room = Room { total: 20 * GIB, free: 5 * GIB };
        assert_eq!(admit(room, 4 * GIB), Ok(()));
        let shortage = admit(room, 4 * GIB + 1).unwrap_err();
        assert_eq!(shortage, Shortage { wanted: 4 * GIB + 1, free: 5 * GIB, reserve: GIB });
        assert_eq!((shortage.fits(), shortage.to_ask_for()), (4 * GIB, Some(4 * GIB)));
        let nothing = Shortage { free: GIB + 5000, ..shortage };
        assert_eq!((nothing.fits(), nothing.to_ask_for()), (5000, None));
    }

    #[test]
    fn the_reserve_has_bounds() {
        assert_eq!((reserve(100 << 20), reserve(10 << 40)), (64 << 20, 2 * GIB));
        assert_eq!(admit(Room { total: GIB, free: 10 << 20 }, 1).unwrap_err().fits(), 0);
    }
}
