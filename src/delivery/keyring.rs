//! The webhook secrets of all teams. A delivery is proven by the secret of one team, so that no two may have the same.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::key::Key;
use crate::team::Team;

/// A secret, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct TeamKey {
    pub(super) key: Key,
    team: Team,
    number: usize,
    same_as: Option<(Team, usize)>,
}

impl TeamKey {
    /// A secret of the top level.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn of_top(secret: &[u8]) -> Self {
        Self { key: Key::new(secret), team: Team::TOP, number: 0, same_as: None }
    }

    /// The team that it proves.
    pub(crate) fn team(&self) -> &Team {
        &self.team
    }

    /// Its position among the team's secrets.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Another team with the same secret, and its position there; then it proves neither.
    pub(crate) fn same_as(&self) -> Option<&(Team, usize)> {
        self.same_as.as_ref()
    }
}

/// All secrets, by team.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    keys: Vec<TeamKey>,
    teams: BTreeMap<Team, Range<usize>>,
}

impl Keyring {
    /// Takes the secrets of each team, and finds those that several teams have.
    pub(crate) fn new<'k>(teams: impl IntoIterator<Item = (&'k Team, &'k [Key])>) -> Self {
        let mut ring = Self::default();
        for (team, keys) in teams {
            let begin = ring.keys.len();
            let own = keys.iter().enumerate().map(|(number, key)| {
                let (key, team) = (key.clone(), team.clone());
                TeamKey { key, team, number, same_as: None }
            });
            ring.keys.extend(own);
            ring.teams.insert(team.clone(), begin..ring.keys.len());
        }
        if ring.teams.len() > 1 {
            ring.mark_shared();
        }
        ring
    }

    fn mark_shared(&mut self) {
        let mut equal: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (index, key) in self.keys.iter().enumerate() {
            for fingerprint in key.key.fingerprints() {
                equal.entry(fingerprint).or_default().push(index);
            }
        }
        for indices in equal.into_values() {
            let places: Vec<(Team, usize)> =
                indices.iter().map(|&index| (self.keys[index].team.clone(), self.keys[index].number)).collect();
            for index in indices {
                let key = &mut self.keys[index];
                key.same_as = key.same_as.take().or_else(|| places.iter().find(|(team, _)| *team != key.team).cloned());
            }
        }
    }

    /// Number of secrets.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no secret.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All secrets, in the order of teams.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TeamKey> {
        self.keys.iter()
    }

    /// The secrets of a team.
    pub(crate) fn of_team(&self, team: &Team) -> &[TeamKey] {
        self.teams.get(team).and_then(|range| self.keys.get(range.clone())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(teams: &[(&str, &[&str])]) -> Keyring {
        let teams: Vec<(Team, Vec<Key>)> = teams
            .iter()
            .map(|(name, secrets)| {
                let team = if name.is_empty() { Team::TOP } else { Team::of_folder(name) };
                (team, secrets.iter().map(|secret| Key::new(secret.as_bytes())).collect())
            })
            .collect();
        Keyring::new(teams.iter().map(|(team, keys)| (team, keys.as_slice())))
    }

    fn shared(ring: &Keyring) -> Vec<bool> {
        ring.iter().map(|key| key.same_as().is_some()).collect()
    }

    #[test]
    fn secrets_of_one_team_may_be_equal() {
        assert_eq!(shared(&ring(&[("a", &["one", "one"]), ("b", &["two"])])), [false, false, false]);
        assert_eq!(shared(&ring(&[("", &["one", "one"])])), [false, false]);
    }

    #[test]
    fn a_secret_of_two_teams_is_marked_in_both() {
        assert_eq!(shared(&ring(&[("a", &["one", "two"]), ("b", &["three", "two"])])), [false, true, false, true]);
        assert_eq!(shared(&ring(&[("", &["one"]), ("b", &["one"])])), [true, true], "the top level is like a team");
        assert_eq!(shared(&ring(&[("a", &["one", "one"]), ("b", &["one"])])), [true, true, true]);
        assert_eq!(shared(&ring(&[("a", &["one"]), ("b", &["one"]), ("c", &["one"])])), [true, true, true]);
        let named = ring(&[("a", &["one"]), ("b", &["one"])]);
        assert_eq!(named.of_team(&Team::of_folder("a"))[0].same_as(), Some(&(Team::of_folder("b"), 0)));
    }

    #[test]
    fn texts_that_are_the_same_key_to_hmac_are_the_same_secret() {
        // HMAC fills a short key with NUL bytes, and hashes one that is longer than a block.
        let long = "x".repeat(65);
        let ring = |other: &[u8]| {
            let (a, b) = (Team::of_folder("a"), Team::of_folder("b"));
            let (one, two) = ([Key::new(long.as_bytes()), Key::new(b"short")], [Key::new(other)]);
            shared(&Keyring::new([(&a, &one[..]), (&b, &two[..])]))
        };
        use sha1::Sha1;
        use sha2::{Digest, Sha256};
        assert_eq!(ring(b"short\0"), [false, true, true]);
        assert_eq!(ring(&Sha256::digest(long.as_bytes())), [true, false, true]);
        assert_eq!(ring(&Sha1::digest(long.as_bytes())), [true, false, true]);
        assert_eq!(ring(b"other"), [false, false, false]);
    }
}
