//! Sends the requests that its object asks for, one a line: `GET https://api.example.com/path`, or
//! `POST https://api.example.com/path body`, of which nothing is checked here. `{name}.fetched` has a line for
//! each: `200 body`, or `error` and why. Settings: `follow`, so many redirects (0).

use guests::{Body, ObjectInfo, Processed, Verdict};

#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated from http.wit")]
mod bindings {
    wit_bindgen::generate!({ path: "http.wit", world: "requests", generate_all });
}

use bindings::wasi::{
    http::{
        outgoing_handler::handle,
        types::{ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme},
    },
    io::streams::StreamError,
};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let follow = guests::number("follow", 0)?;
    let fetched = guests::output(&object, "fetched")?;
    for line in guests::lines(&input) {
        let mut parts = line.splitn(3, ' ');
        let (method, url) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let answer = fetch(method, url, parts.next(), follow).unwrap_or_else(|error| format!("error {error}"));
        fetched.write(format!("{answer}\n").as_bytes());
    }
    Ok(Verdict::Done)
}

fn fetch(method: &str, url: &str, body: Option<&str>, follow: u64) -> Result<String, String> {
    let response = send(method, url, body)?;
    let status = response.status();
    let location = response.headers().get("location").into_iter().next();
    match location.filter(|_| follow > 0 && (300..400).contains(&status)) {
        Some(location) => fetch(method, &String::from_utf8_lossy(&location), body, follow - 1),
        None => Ok(format!("{status} {}", read(response)?)),
    }
}

fn send(method: &str, url: &str, body: Option<&str>) -> Result<IncomingResponse, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let headers = Fields::new();
    headers.append("x-plugin", b"fetch").map_err(|error| format!("{error:?}"))?;
    let request = OutgoingRequest::new(headers);
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    request.set_method(&method_of(method)).map_err(|()| "no method")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "no scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "no authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "no path")?;
    let outgoing = body.map(|_| request.body()).transpose().map_err(|()| "no body")?;
    let response = handle(request, None).map_err(|error| told(&error))?;
    if let (Some(outgoing), Some(body)) = (outgoing, body) {
        // What could not be written is told by the response.
        let stream = outgoing.write().map_err(|()| "no stream")?;
        let written = body.as_bytes().chunks(4096).try_for_each(|chunk| stream.blocking_write_and_flush(chunk));
        drop(stream);
        if written.is_ok() {
            OutgoingBody::finish(outgoing, None).map_err(|error| told(&error))?;
        }
    }
    response.subscribe().block();
    let response = response.get().ok_or("not ready")?.map_err(|()| "taken")?;
    response.map_err(|error| told(&error))
}

fn method_of(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        "TRACE" => Method::Trace,
        other => Method::Other(other.to_owned()),
    }
}

fn read(response: IncomingResponse) -> Result<String, String> {
    let body = response.consume().map_err(|()| "consumed")?;
    let stream = body.stream().map_err(|()| "no stream")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(more) => bytes.extend(more),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => return Err(format!("in the body after {} bytes", bytes.len())),
        }
    }
    // Long ones are told by their length.
    Ok(if bytes.len() > 1000 { format!("{} bytes", bytes.len()) } else { String::from_utf8_lossy(&bytes).into_owned() })
}

/// The name alone: what a host adds to it may differ.
fn told(error: &ErrorCode) -> String {
    let text = format!("{error:?}");
    let name = text.strip_prefix("ErrorCode::").unwrap_or(&text);
    name.split(['(', ' ']).next().unwrap_or_default().to_owned()
}
