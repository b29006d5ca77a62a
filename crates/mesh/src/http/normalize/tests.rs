//! One form for what means the same to everybody, and a word for everything else.

use proptest::prelude::*;

use super::*;

#[test]
fn what_means_the_same_to_everybody_has_one_form() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/a/b/", "/a/b/", None),
        ("/%61%2d%7E", "/a-~", None),
        ("/a%c3%a9", "/a%C3%A9", None),
        ("/a%20b", "/a%20b", None),
        ("/a?b=/../c;d//e", "/a", Some("b=/../c;d//e")),
        ("/a?", "/a", Some("")),
        ("/...", "/...", None),
        ("*", "*", None),
    ] {
        let read = normalize(target).unwrap();
        assert_eq!((read.path(), read.query(), read.ambiguity()), (path, query, None), "{target}");
    }
}

#[test]
fn what_servers_read_differently_stays_and_is_named() {
    for (target, ambiguity) in [
        ("/a%2fb", Ambiguity::EncodedSlash),
        ("/a%2Fb", Ambiguity::EncodedSlash),
        ("/a\\b", Ambiguity::Backslash),
        ("/a%5cb", Ambiguity::Backslash),
        ("/a/../b", Ambiguity::DotSegment),
        ("/a/%2e%2E/b", Ambiguity::DotSegment),
        ("/a/.%2e", Ambiguity::DotSegment),
        ("/./a", Ambiguity::DotSegment),
        ("//a", Ambiguity::EmptySegment),
        ("/a//", Ambiguity::EmptySegment),
        ("/a;b=c", Ambiguity::Parameter),
        ("/a%3bb", Ambiguity::Parameter),
        ("/a%252fb", Ambiguity::TwiceEncoded),
        ("/a%25%32%46b", Ambiguity::TwiceEncoded),
        ("/a%252%46b", Ambiguity::TwiceEncoded),
        ("/a%25%32fb", Ambiguity::TwiceEncoded),
        ("/a%", Ambiguity::InvalidEscape),
        ("/a%zz", Ambiguity::InvalidEscape),
        ("/a%2", Ambiguity::InvalidEscape),
        ("/a%é", Ambiguity::InvalidEscape),
        ("/a%00", Ambiguity::EncodedControl),
        ("/a%0d%0a", Ambiguity::EncodedControl),
        ("/é", Ambiguity::Unescaped),
        ("/a b", Ambiguity::Unescaped),
    ] {
        let read = normalize(target).unwrap();
        assert_eq!((read.path(), read.ambiguity()), (target, Some(ambiguity)), "{target}");
    }
}

#[test]
fn other_targets_are_refused() {
    for target in ["", "a", "http://a/b", "/a#b", "/a?b#c", "*a", "?a"] {
        assert_eq!(normalize(target), Err(InvalidTarget), "{target}");
    }
}

proptest! {
    #[test]
    fn what_is_normal_stays_so(target in "/[a-zA-Z0-9%./;?~ é-]{0,12}") {
        if let Ok(path) = normalize(&target)
            && path.ambiguity().is_none()
        {
            let again = normalize(&path.target(path.path())).unwrap();
            prop_assert_eq!(again, path);
        }
    }

    /// Escapes of escapes among them.
    #[test]
    fn escapes_have_one_form(target in "/(%25|%3[0-9]|%[46][1-6]|%2[efEF0]|[a-f0-9/.]){0,8}") {
        if let Ok(path) = normalize(&target)
            && path.ambiguity().is_none()
        {
            prop_assert_eq!(normalize(path.path()).unwrap(), path);
        }
    }

    #[test]
    fn nothing_makes_it_panic(target in any::<String>()) {
        let _ = normalize(&target);
        let _ = percent_decoded(&target);
    }
}
