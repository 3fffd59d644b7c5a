//! A manifest of 10 MB.

lie::module!(format!(
    r#"{{"schema":1,"functions":[{{"id":"big","name":"{}","triggers":[]}}]}}"#,
    "x".repeat(10_000_000)
));
