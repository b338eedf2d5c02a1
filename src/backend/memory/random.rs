//! Faults by chance, the same chance for the same seed.

use super::faults::{CallKind, Fault, Late};

/// How often each fault is drawn, in thousandths of the operations it fits. All are 0 by default.
///
/// The rates of a write are added up, as are those of a read; what is over 1000 never comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// [`Fault::LostAck`]
    pub lost_ack: u16,
    /// [`Fault::LostWrite`]
    pub lost_write: u16,
    /// [`Fault::LateWrite`], arriving before one of the next eight operations.
    pub late_write: u16,
    /// [`Fault::Conflict`]
    pub conflict: u16,
    /// [`Fault::StaleRead`] of one to four writes ago.
    pub stale_read: u16,
    /// [`Fault::Outage`] of one operation.
    pub outage: u16,
}

/// Draws faults.
pub(super) struct Random {
    state: u64,
    rates: Rates,
}

impl Random {
    pub(super) fn new(seed: u64, rates: Rates) -> Self {
        Self { state: seed, rates }
    }

    /// At most one fault that fits. Every call takes three numbers, so that a draw does not depend on those before.
    pub(super) fn draw(&mut self, kind: CallKind) -> Option<Fault> {
        let rates = self.rates;
        let chance = self.below(1000);
        let operations = 1 + self.below(8) as usize;
        let writes = 1 + self.below(4) as usize;
        let late = Late::BeforeOperation(operations);
        let choices = match kind {
            CallKind::Write => vec![
                (rates.outage, Fault::Outage),
                (rates.lost_ack, Fault::LostAck),
                (rates.lost_write, Fault::LostWrite),
                (rates.late_write, Fault::LateWrite(late)),
                (rates.conflict, Fault::Conflict),
            ],
            CallKind::NearestRead => {
                vec![(rates.outage, Fault::Outage), (rates.stale_read, Fault::StaleRead(writes))]
            }
            CallKind::LeaderRead => vec![(rates.outage, Fault::Outage)],
        };
        let mut end = 0;
        choices.into_iter().find_map(|(rate, fault)| {
            end += u64::from(rate);
            (chance < end).then_some(fault)
        })
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// The next number of splitmix64.
    fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
