wit_bindgen::generate!({ world: "plugin", path: "wit" });
use gristmill::plugin::host::create_output;

struct Shout;
export!(Shout);

impl Guest for Shout {
    fn process(object: ObjectInfo, input: Body) -> Result<Verdict, Failure> {
        let output = create_output(&format!("{}.loud", object.name), Some("text/plain"), &[])
            .map_err(|error| Failure::Reject(error.to_string()))?;
        loop {
            let bytes = input.read(64 << 10);
            if bytes.is_empty() {
                return Ok(Verdict::Done);
            }
            output.write(&bytes.to_ascii_uppercase());
        }
    }
}
