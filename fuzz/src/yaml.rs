//! Whatever stands in a config file, what is wrong is said at a place that is in it, and a config that is taken
//! and written again, as serde_json writes it, is the same config.

use config::parse;

pub fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match parse("fuzz.yaml", text) {
        Ok(loaded) => {
            let again = serde_json::to_string(&loaded.config).expect("a config can be written");
            let again = parse("again.yaml", &again).unwrap_or_else(|why| panic!("{again}: {why}"));
            assert_eq!(again.config, loaded.config);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "it is refused without a reason");
            // A line can also end with CR alone.
            let lines = text.split(['\n', '\r']).count();
            for problem in problems.iter() {
                let place = &problem.place;
                let line = usize::try_from(place.line).expect("a number");
                assert!((1..=lines).contains(&line) && place.column > 0, "{problem}");
                assert!(!problem.message.is_empty());
            }
        }
    }
}
