// Package sessionstore owns what a session is: its attributes, its keys and
// lifetimes in Redis, and every step that changes them.
//
// A [Factory] gives any code the session behind an ID, with or without an
// HTTP request; [Store] is the gorilla/sessions face of it for handlers, and
// [Watcher] tells sockets what becomes of the session that they are bound to.
//
// # Sharing with an unmodified redisstore/v9 application
//
// The stored value is exactly what redisstore/v9 writes with the same
// serializer under the same key, so that both read and write one session.
// What redisstore cannot keep is kept beside the value, in keys of the same
// Cluster slot: that a session has ended (an application that was slow
// cannot bring it back), what its ID was replaced by, and which handle it
// was given (an application may write over attributes that it had not seen).
//
// # Writing
//
// A [Session] is one caller's working copy. Saving merges what this copy
// changed into the stored bytes by compare-and-set, so that writers of
// different attributes all keep their change, and [Factory.Update] runs its
// function again on the newest state, so that writers of the same attribute
// do. Nothing but [Session.Save] of a new session, a login and a rotation
// ever creates a value: not a save, not a touch, not a merge.
//
// # Identity
//
// The ID is a secret between the cookie and Redis. Everything else names a
// session by its handle, which survives every rotation of the ID. No error,
// log line or metric of this package holds an ID.
package sessionstore
