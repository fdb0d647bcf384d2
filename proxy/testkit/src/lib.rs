//! tulle-testkit
