/* SPDX-License-Identifier: BSD-2-Clause */
/* list.h - doubly linked lists whose links lie in their members.
 *
 * The list owns nothing and allocates nothing.  A link that is in no list
 * points to itself, so that it can be removed twice and asked whether it is in
 * one.  No locking: the owner of a list says what protects it.
 */
#ifndef LACUNA_LIST_H
#define LACUNA_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
  struct list *next;
  struct list *prev;
};

#define LIST_INIT(name) { &(name), &(name) }

/* The structure of which LINK is the member MEMBER. */
#define container_of(link, type, member)                                      \
  ((type *) ((char *) (link) - offsetof (type, member)))

#define list_for_each(at, head)                                               \
  for (struct list *at = (head)->next; at != (head); at = at->next)

/* The current member may be removed while walking. */
#define list_for_each_safe(at, head)                                          \
  for (struct list *at = (head)->next, *at##_next = at->next; at != (head);   \
       at = at##_next, at##_next = at->next)

static inline void
list_init (struct list *list)
{
  list->next = list->prev = list;
}

static inline bool
list_is_empty (const struct list *list)
{
  return list->next == list;
}

static inline void
list_insert_before (struct list *link, struct list *position)
{
  link->prev = position->prev;
  link->next = position;
  position->prev->next = link;
  position->prev = link;
}

static inline void
list_append (struct list *list, struct list *link)
{
  list_insert_before (link, list);
}

static inline void
list_prepend (struct list *list, struct list *link)
{
  list_insert_before (link, list->next);
}

static inline void
list_remove (struct list *link)
{
  link->prev->next = link->next;
  link->next->prev = link->prev;
  list_init (link);
}

/* Removes and returns the first link, NULL if there is none. */
static inline struct list *
list_take (struct list *list)
{
  struct list *link = list->next;

  if (link == list)
    return NULL;
  list_remove (link);
  return link;
}

/* Moves all members of FROM to the end of TO; FROM is empty afterwards. */
static inline void
list_splice (struct list *to, struct list *from)
{
  if (list_is_empty (from))
    return;
  from->next->prev = to->prev;
  to->prev->next = from->next;
  from->prev->next = to;
  to->prev = from->prev;
  list_init (from);
}

#endif
