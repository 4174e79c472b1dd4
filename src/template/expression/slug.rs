//! `slug(x)`: any text as a DNS-1123 label.

/// Characters of a DNS-1123 label at most.
const MAX: usize = 63;

/// Lower case letters and digits are kept, everything between them becomes one `-`; never empty, never longer than a
/// label: `Feature/Login 2` is `feature-login-2`.
pub(crate) fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len().min(MAX));
    for character in text.chars() {
        if slug.len() == MAX {
            break;
        }
        match character.to_ascii_lowercase() {
            kept @ ('a'..='z' | '0'..='9') => slug.push(kept),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    if slug.is_empty() { "x".to_owned() } else { slug }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::slug;
    use crate::template::label;

    #[test]
    fn makes_a_label_of_a_branch() {
        assert_eq!(slug("Feature/Login 2"), "feature-login-2");
        assert_eq!(slug("--a__b--"), "a-b");
        assert_eq!(slug("ü"), "x");
        assert_eq!(slug(&"a".repeat(100)).len(), 63);
        assert_eq!(slug(&format!("{}/b", "a".repeat(62))), "a".repeat(62));
    }

    proptest! {
        #[test]
        fn is_always_a_label(text in any::<String>()) {
            prop_assert!(label::is_dns_label(&slug(&text)), "{:?}", slug(&text));
        }
    }
}
