//! A manifest that depends on the run, which there is none of.

lie::module!(manifest());

fn manifest() -> String {
    lie::dormouse::info!("describing");
    r#"{"schema":1,"functions":[{"id":"caller","triggers":[{"event":"test/lie"}]}]}"#.to_owned()
}
