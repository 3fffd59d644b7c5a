//! A manifest of 1,000 functions.

lie::module!(manifest());

fn manifest() -> String {
    let functions: Vec<String> = (0..1000)
        .map(|number| format!(r#"{{"id":"f{number}","triggers":[{{"event":"test/lie"}}]}}"#))
        .collect();
    format!(r#"{{"schema":1,"functions":[{}]}}"#, functions.join(","))
}
