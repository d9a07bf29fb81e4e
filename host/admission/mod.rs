//! Who may go on, and who waits where: slots, the waiting room, and turns at the plugins.
//!
//! A message that is received sits in a slot, and no more are received than slots are free. An object of it
//! that needs plugins takes a [`Turn`]: a place at each of its plugins, one among the objects that are with
//! plugins, and its size out of the bytes in flight. When that cannot be had at once, its message changes
//! over into the waiting room, so that the slot is free for the objects of other plugins; it sits there
//! until it is settled. Only when the room is full does it wait in its slot, and then less is received.
//!
//! Nobody can wait for ever. A turn is given whole or not at all, so whoever waits for one holds nothing that
//! a turn needs; and whoever has one waits only for plugin and store, which have deadlines. A seat in the
//! room is never waited for by somebody who would not go on without it.

mod turns;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::turns::{Bounds, Turns};
pub use self::turns::{Hold, Turn};
use crate::config::Config;

/// Messages in the waiting room for each slot. Each costs its body and a renewal of its lease now and then;
/// and each is one that no other host can take meanwhile. So it is as many as let a burst for one plugin
/// pass, and far less than the 120,000 that SQS allows to be in flight.
pub const WAITING_PER_SLOT: usize = 16;

/// What one host takes upon itself at the same time.
pub struct Admission {
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
    turns: Arc<Turns>,
    closed: CancellationToken,
}

impl Admission {
    /// Everything is free. From when `closed` is cancelled on nobody waits for a turn any more.
    #[must_use]
    pub fn new(config: &Config, closed: CancellationToken) -> Arc<Self> {
        let named = config.concurrency.keys().map(|plugin| (plugin.clone(), config.concurrency(plugin))).collect();
        // The default is that of a name which nobody can have written.
        let bounds = Bounds {
            turns: config.slots,
            bytes: config.bytes_in_flight,
            places: named,
            other_places: config.concurrency(""),
        };
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(config.slots)),
            room: Arc::new(Semaphore::new(config.slots.saturating_mul(WAITING_PER_SLOT))),
            turns: Turns::new(bounds),
            closed,
        })
    }

    /// At least one slot, and as many as are free up to `most`.
    pub async fn seats(self: &Arc<Self>, most: usize) -> Vec<Seat> {
        let mut seats = Vec::with_capacity(most);
        let seat =
            |permit| Seat { admission: Arc::clone(self), place: Mutex::new(Place { _permit: permit, in_room: false }) };
        // The semaphore is never closed, so an error cannot come; without a slot nothing is received.
        seats.extend(Arc::clone(&self.slots).acquire_owned().await.ok().map(seat));
        while seats.len() < most
            && let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned()
        {
            seats.push(seat(permit));
        }
        seats
    }
}

/// Where one message sits from its receipt until it is settled: in a slot, or in the waiting room.
pub struct Seat {
    admission: Arc<Admission>,
    place: Mutex<Place>,
}

struct Place {
    _permit: OwnedSemaphorePermit,
    in_room: bool,
}

impl Seat {
    /// Waits for a turn of an object of `bytes` at all of these plugins, in the order of those who wait for
    /// the same ones. Dropping the future gives everything back. `None` when it would have to wait while
    /// nobody may.
    pub async fn turn<'p>(&self, plugins: impl IntoIterator<Item = &'p str>, bytes: u64) -> Option<Turn> {
        let Admission { room, turns, closed, .. } = &*self.admission;
        let mut waiting = turns.ask(plugins, bytes);
        loop {
            tokio::select! {
                biased;
                turn = waiting.turn() => return turn,
                () = closed.cancelled() => return None,
                // The semaphore is never closed, so an error cannot come.
                Ok(permit) = Arc::clone(room).acquire_owned(), if self.is_slot() => self.change_over(permit),
            }
        }
    }

    fn is_slot(&self) -> bool {
        !self.place.lock().unwrap_or_else(PoisonError::into_inner).in_room
    }

    fn change_over(&self, permit: OwnedSemaphorePermit) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Place { _permit: permit, in_room: true };
    }
}
