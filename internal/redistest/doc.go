// Package redistest gives tests a real Redis and a link to it that can fail.
//
// Start runs a redis-server process, TLS one that speaks TLS only, Mini an
// in-process miniredis, and Each the same test against a real one and a
// miniredis. NewLink puts a TCP proxy in front of any of them that can be
// cut, delayed and made to lose traffic. StartSentinels and StartCluster run
// several servers that replace each other.
//
// Everything is stopped by the test's cleanup. Redis is never optional: a
// machine without redis-server fails the test and names the remedy.
package redistest
