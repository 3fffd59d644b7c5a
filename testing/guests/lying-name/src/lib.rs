//! A manifest with a function id that is none.

lie::module!(
    r#"{"schema":1,"functions":[{"id":"Not A Name!","triggers":[{"event":"test/lie"}]}]}"#.to_owned()
);
