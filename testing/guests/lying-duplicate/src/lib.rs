//! A manifest with two functions of one id.

lie::module!(r#"{"schema":1,"functions":[{"id":"twice","triggers":[{"event":"test/lie"}]},{"id":"twice","triggers":[{"event":"test/lie"}]}]}"#.to_owned());
