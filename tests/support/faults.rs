//! Where a simulation makes the fakes fail.

use std::time::Duration;

/// What happens at a point of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing: the call goes on.
    None,
    /// It goes on after a while.
    Delay(Duration),
    /// It fails as unavailable. After its effect, that is a lost answer.
    Error,
    /// It never comes back.
    Hang,
}

/// A point of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// Nothing has happened.
    Before,
    /// Half of it has happened; only for calls that are two steps in a real store.
    Amid,
    /// All of it has happened.
    After,
}

/// Decides about faults. `call` is the trait method's name, `subject` the key or the message's id.
pub trait Faults: Send + Sync + 'static {
    fn at(&self, call: &'static str, when: When, subject: &str) -> Fault;
}

/// None at all.
pub struct NoFaults;

impl Faults for NoFaults {
    fn at(&self, _: &'static str, _: When, _: &str) -> Fault {
        Fault::None
    }
}

impl<F: Fn(&'static str, When, &str) -> Fault + Send + Sync + 'static> Faults for F {
    fn at(&self, call: &'static str, when: When, subject: &str) -> Fault {
        self(call, when, subject)
    }
}

/// Lets the policy have its way; an error is what the fake then answers as its reason.
pub async fn pass(faults: &dyn Faults, call: &'static str, when: When, subject: &str) -> Result<(), String> {
    match faults.at(call, when, subject) {
        Fault::None => Ok(()),
        Fault::Delay(duration) => {
            tokio::time::sleep(duration).await;
            Ok(())
        }
        Fault::Error => Err(format!("a fault was injected into {call} of `{subject}` ({when:?})")),
        Fault::Hang => std::future::pending().await,
    }
}
