//! Any sequence of calls with any arguments, straight from the guest's side of the interface: each call ends in a
//! way that has a name, and leaves nothing.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod support {
    pub mod puppet;
}

use std::{collections::BTreeSet, fs};

use gristmill::plugin::CallError;
use proptest::{collection::vec, prelude::*, sample::select};
use support::puppet::{CALLS, RECORD, play};

/// Where things are in the puppet's memory, what lies beyond it, handles that exist and some that don't, and the
/// ends of every range.
const EXTREMES: &[u32] = &[
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    16,
    36,
    255,
    256,
    1_024,
    2_048,
    4_096,
    4_103,
    4_200,
    4_201,
    65_535,
    65_536,
    100_000,
    1_310_716,
    1_310_719,
    1_310_720,
    0xffff,
    0xd800_dc00,
    16 << 20,
    (16 << 20) + 1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff8,
    0xffff_fffc,
    0xffff_ffff,
];

fn script(records: &[[u32; RECORD]]) -> Vec<u8> {
    records.iter().flatten().flat_map(|number| number.to_le_bytes()).collect()
}

fn argument() -> impl Strategy<Value = u32> {
    prop_oneof![9 => select(EXTREMES), 1 => any::<u32>()]
}

/// A call that is right in all but perhaps one argument, or one of anything.
fn record() -> impl Strategy<Value = [u32; RECORD]> {
    let right = select(vec![
        [0, 1, 100, 2_048, 0, 0, 0, 0, 0],
        [1, 1, 0, 100, 2_048, 0, 0, 0, 0],
        [3, 2, 4_096, 7, 0, 0, 0, 0, 0],
        [4, 2, 0, 0, 0, 0, 0, 0, 0],
        [5, 4_096, 7, 0, 0, 0, 4_200, 1, 2_048],
        [5, 4_103, 7, 0, 0, 0, 0, 0, 2_048],
        [6, 1, 4_096, 7, 0, 0, 0, 0, 0],
        [7, 4_096, 3, 2_048, 0, 0, 0, 0, 0],
        [8, 2_048, 0, 0, 0, 0, 0, 0, 0],
        [10, 1, 0, 0, 0, 0, 0, 0, 0],
    ]);
    let bent = (right, 1..RECORD, argument(), any::<bool>()).prop_map(|(mut record, place, argument, bend)| {
        if bend {
            record[place] = argument;
        }
        record
    });
    let any = (0..CALLS, vec(argument(), RECORD - 1)).prop_map(|(call, arguments)| {
        let mut record = [call; RECORD];
        record[1..].copy_from_slice(&arguments);
        record
    });
    prop_oneof![4 => bent, 1 => any]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_ends_with_a_name_and_leaves_nothing(records in vec(record(), 0..30)) {
        runtime().block_on(play(&script(&records)));
    }

    #[test]
    fn any_bytes_are_a_script(bytes in vec(any::<u8>(), 0..400)) {
        runtime().block_on(play(&bytes));
    }
}

/// Without this the others could fail for want of a puppet that moves.
#[tokio::test]
async fn the_puppet_does_what_it_is_told() {
    let records = [
        [5, 4_096, 7, 0, 0, 0, 4_200, 1, 2_048],
        [3, 2, 4_096, 22, 0, 0, 0, 0, 0],
        [6, 1, 4_096, 7, 0, 0, 0, 0, 0],
        [7, 4_096, 3, 2_048, 0, 0, 0, 0, 0],
        [4, 2, 0, 0, 0, 0, 0, 0, 0],
    ];
    let report = play(&script(&records)).await;
    assert!(report.result.is_ok(), "{report:?}");
    let [created] = &report.outputs[..] else { panic!("{report:?}") };
    assert_eq!((created.meta.key.as_str(), created.size), ("processed/one.txt", 22));
    assert_eq!(created.meta.metadata, [("key".to_owned(), "value".to_owned())]);
}

/// Every argument of every call at every extreme, the others right. Each ends with one of a few reasons, which all
/// say what was wrong.
#[tokio::test]
async fn every_argument_at_its_extremes_has_a_reason() {
    let right: [[u32; RECORD]; 9] = [
        [0, 1, 100, 2_048, 0, 0, 0, 0, 0],
        [1, 1, 0, 100, 2_048, 0, 0, 0, 0],
        [2, 1, 0, 0, 0, 0, 0, 0, 0],
        [3, 2, 4_096, 7, 0, 0, 0, 0, 0],
        [4, 2, 0, 0, 0, 0, 0, 0, 0],
        [5, 4_103, 7, 1, 4_096, 7, 4_200, 1, 2_048],
        [6, 1, 4_096, 7, 0, 0, 0, 0, 0],
        [7, 4_096, 3, 2_048, 0, 0, 0, 0, 0],
        [8, 2_048, 0, 0, 0, 0, 0, 0, 0],
    ];
    // So that there is an output to write to, whose handle is 2.
    let output = [5, 4_096, 7, 0, 0, 0, 0, 0, 2_048];
    let arguments = [3, 4, 1, 3, 1, 8, 3, 3, 1];
    let (mut played, mut reasons) = (0, BTreeSet::new());
    for (record, arguments) in right.into_iter().zip(arguments) {
        for (place, extreme) in (1..=arguments).flat_map(|place| EXTREMES.iter().map(move |extreme| (place, *extreme)))
        {
            let mut bent = record;
            bent[place] = extreme;
            let report = play(&script(&[output, bent])).await;
            played += 1;
            match report.result {
                Ok(_) => {}
                Err(error @ (CallError::Trap { .. } | CallError::Limit { .. })) => {
                    let reason: String = error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
                    reasons.insert(reason);
                }
                Err(error) => panic!("{bent:?}: {error:?}"),
            }
        }
    }
    assert_eq!(played, 27 * EXTREMES.len());
    for expected in ["handle index", "out of bounds", "aligned", "utf-8", "discriminant", "log_bytes"] {
        let expected = expected.replace(|c: char| c.is_ascii_digit(), "");
        assert!(reasons.iter().any(|reason| reason.contains(&expected)), "{expected}: {reasons:#?}");
    }
}

/// Of the process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// What a process may have more after thousands of calls: less than a hundred bytes of each.
const MARGIN: u64 = 4 << 20;

#[tokio::test]
async fn thousands_of_calls_leave_no_memory() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut round = async |calls: usize| {
        for _ in 0..calls {
            let records: Vec<[u32; RECORD]> = (0..rng.usize(0..20))
                .map(|_| {
                    let mut record = [0; RECORD];
                    record.fill_with(|| EXTREMES[rng.usize(0..EXTREMES.len())]);
                    record[0] = rng.u32(0..CALLS);
                    record
                })
                .collect();
            play(&script(&records)).await;
        }
    };
    // Until everything is there that stays: the pool's memories, code, the allocator's own.
    round(2_000).await;
    let before = resident();
    round(50_000).await;
    let after = resident();
    assert!(after <= before + MARGIN, "{before} before, {after} after");
}
