package storetest

// claim is a promise and the check of it, which returns when it was held.
type claim struct {
	Promise
	check func(*trial)
}

// catalogue is every promise.
var catalogue = []claim{
	// What gorilla itself promises.
	{Promise{"new-session", "A first visit gets a new session; what it saves is there on the next, on every replica",
		"nothing works"}, checkNewSession},
	{Promise{"one-session", "All that ask for the session within a request get the same one",
		"middleware and handler overwrite each other"}, checkOneSession},
	{Promise{"values", "Texts, booleans, integers and fractions come back as they were",
		"an ID beyond 2^53 comes back as another one's"}, checkValues},
	{Promise{"flashes", "A flash message is shown once",
		"messages are lost or shown again"}, checkFlashes},
	{Promise{"parallel-requests", "Requests of one browser may load and save at the same time",
		"pages that load many things at once fail now and then"}, checkParallelRequests},

	// Who is who.
	{Promise{"unknown-id", "An ID that the store did not issue, or that has ended, is not adopted",
		"session fixation: who plants a cookie in a browser is logged in with its user"}, checkUnknownID},
	{Promise{"malformed-id", "What is not even the form of an ID is not looked up, adopted or echoed",
		"a client reads and writes other keys, or makes keys of any size"}, checkMalformedID},
	{Promise{"id-secret", "The ID appears in its cookie only: in no other header, no page and no error",
		"who reads the logs can be anybody"}, checkSecretID},
	{Promise{"renewal", "At login the ID is replaced: values stay, and the old one leads nowhere",
		"who knew the ID before the login is logged in by it"}, checkRenewal},
	{Promise{"renewal-race", "A request under way during the login neither brings the old ID back nor takes the new one from the browser",
		"logged in by a known ID, or not logged in, now and then"}, checkRenewalRace},
	{Promise{"renewal-twice", "A login form that is sent twice leaves no second session behind",
		"the forgotten one outlives the logout"}, checkRenewalTwice},

	// Writes.
	{Promise{"concurrent-changes", "Requests that change different attributes at the same time all keep their change",
		"the slower request erases what the faster one wrote"}, checkConcurrentChanges},
	{Promise{"concurrent-replicas", "So do requests on two replicas that change different attributes",
		"writes are erased as soon as there is a second process"}, checkConcurrentReplicas},
	{Promise{"deletion", "A deleted attribute stays deleted when a request that still had it saves",
		"rights that were taken come back"}, checkDeletion},
	{Promise{"unchanged-save", "Saving an unchanged session writes nothing",
		"pages that only look undo the writes of others"}, checkUnchangedSave},
	{Promise{"empty-session", "Saving a new session without values sets no cookie",
		"every crawler leaves a session behind"}, checkEmptySession},
	{Promise{"client-gone", "A save is carried out although the client has gone",
		"what was done for a client is not remembered when it hangs up early"}, checkClientGone},

	// The end.
	{Promise{"logout", "MaxAge below zero ends the session: the cookie is cleared and worth nothing on any replica",
		"a copied cookie outlives the logout"}, checkLogout},
	{Promise{"late-save", "A request under way during the logout does not bring the session back",
		"the user logs out and is still logged in"}, checkLateSave},
	{Promise{"late-save-replicas", "Nor does a request under way on another replica bring the session back",
		"logouts are undone as soon as there is a second process"}, checkLateSaveReplicas},
	{Promise{"logout-race", "A logout under way during the login ends the session under its new ID, too",
		"the user is logged in after a logout that succeeded"}, checkLogoutRace},

	// Failures.
	{Promise{"outage-error", "When the backend is away, loading, saving and logging out return an error",
		"everybody looks logged out, or believes to be"}, checkOutageError},
	{Promise{"outage-kept", "After a load that failed, a save erases neither the session nor the browser's hold of it",
		"an outage of a second logs everybody out for good"}, checkOutageKept},
	{Promise{"undecodable-error", "A value that cannot be decoded is an error",
		"a bad deployment looks like a logout"}, checkUndecodableError},
	{Promise{"undecodable-kept", "A value that cannot be decoded is never written over",
		"a bad deployment erases the sessions that the old version could still read"}, checkUndecodableKept},

	// The cookie.
	{Promise{"cookie-attributes", "The cookie is HttpOnly, SameSite Lax or Strict, for all paths, and Secure over TLS",
		"page scripts, other sites and the network get at it"}, checkCookieAttributes},
	{Promise{"browser-session", "MaxAge zero makes a session that lasts until the browser closes",
		"a session that must not stay on a shared computer cannot be had"}, checkBrowserSession},
	{Promise{"remember-me", "The life that the application gave a cookie is not shortened by later saves",
		"\"remember me\" forgets"}, checkRememberMe},
}
