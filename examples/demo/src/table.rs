//! Tables with what makes real ones awkward.

use std::fmt::Write as _;

/// Rows of the CSV file: enough to see a speed.
const ROWS: u32 = 50_000;

/// Lines of the NDJSON file.
const READINGS: u32 = 20_000;

/// A CSV file with quoted commas, quotes, line feeds and empty fields, and two rows that are wrong: one is
/// too short, one too long.
pub fn deliveries() -> String {
    let mut csv = String::from("id,day,farm,grain,kilograms,moisture,paid,remark\n");
    let farms = ["Ash Farm", "\"Bean, Broad & Sons\"", "\"The \"\"New\"\" Barn\"", "Żółty Młyn", "Mühlenhof"];
    let grains = ["wheat", "rye", "oats", "spelt"];
    let remarks = ["", "dry", "\"two sacks torn,\nthe rest is fine\"", "", "\"said \"\"later\"\"\"", "late"];
    for id in 1..=ROWS {
        match id {
            17_000 => csv.push_str("17000,2026-08-17,Ash Farm\n"),
            34_000 => csv.push_str("34000,2026-08-17,Ash Farm,rye,250,12.5,true,dry,and,more\n"),
            _ => {
                let n = hash(id);
                let (day, farm, grain) = (1 + n % 28, pick(&farms, n >> 5), pick(&grains, n >> 8));
                let (kilograms, paid, remark) = (100 + n % 1900, !n.is_multiple_of(3), pick(&remarks, n >> 11));
                // Every fiftieth was not measured.
                let moisture = if n.is_multiple_of(50) { String::new() } else { format!("{}.{}", 9 + n % 8, n % 10) };
                // Writing to a string cannot fail.
                let _ = writeln!(csv, "{id},2026-08-{day:02},{farm},{grain},{kilograms},{moisture},{paid},{remark}");
            }
        }
    }
    csv
}

/// An NDJSON file whose records differ, with one line that is cut off.
pub fn sensors() -> String {
    let mut ndjson = String::new();
    for second in 0..READINGS {
        let n = hash(second);
        let (hour, minute, second_of_minute) = (second / 3600, second / 60 % 60, second % 60);
        let time = format!("2026-08-17T{hour:02}:{minute:02}:{second_of_minute:02}Z");
        let line = match n % 10 {
            _ if second == 12_345 => format!("{{\"time\":\"{time}\",\"sensor\":\"sto"),
            0 => format!("{{\"time\":\"{time}\",\"sensor\":\"door\",\"open\":{}}}", n & 16 == 0),
            1 => format!(
                "{{\"time\":\"{time}\",\"sensor\":\"scale\",\"grams\":{},\"tags\":[\"in\",\"dry\"]}}",
                n % 90_000
            ),
            2 => {
                format!("{{\"time\":\"{time}\",\"sensor\":\"vane\",\"wind\":{{\"from\":\"NW\",\"knots\":{}}}}}", n % 30)
            }
            _ => format!(
                "{{\"time\":\"{time}\",\"sensor\":\"stone\",\"celsius\":{}.{},\"note\":null}}",
                18 + n % 40,
                n % 10
            ),
        };
        ndjson.push_str(&line);
        ndjson.push('\n');
    }
    ndjson
}

fn pick<'a>(from: &[&'a str], n: u32) -> &'a str {
    from[n as usize % from.len()]
}

/// Spreads the bits of `n` (the finaliser of MurmurHash3).
pub fn hash(n: u32) -> u32 {
    let n = (n ^ (n >> 16)).wrapping_mul(0x85eb_ca6b);
    let n = (n ^ (n >> 13)).wrapping_mul(0xc2b2_ae35);
    n ^ (n >> 16)
}
